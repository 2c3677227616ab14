"""Segmentation runs on real data, from the layouts in which they are distributed."""

import os
from pathlib import Path

import pytest

import foveal
from foveal.config import DataConfig, SegmentConfig, SlidingConfig

needs_data = pytest.mark.skipif(
    not os.environ.get("FOVEAL_DATA_ROOT"), reason="FOVEAL_DATA_ROOT is not set"
)


@needs_data
@pytest.mark.parametrize(
    ("folder", "layout", "classes"), [("CamVid", "camvid", 11), ("mini-voc", "voc", 21)]
)
def test_a_step_and_the_whole_evaluation(folder, layout, classes, tmp_path):
    config = SegmentConfig(
        data=DataConfig(
            root=str(Path(os.environ["FOVEAL_DATA_ROOT"]) / folder),
            image_size=64,
            batch_size=4,
            workers=0,
        ),
        sliding=SlidingConfig(window=0, flip=False),
        model="lraspp",
        backbone="test_efficientnet",
        max_steps=1,
        device="cpu",
        out=str(tmp_path / "run"),
    )
    run = foveal.train(config)
    assert run.config.data.layout == layout
    assert len(run.load().classes) == classes
    assert 0 <= run.metrics["test/miou"] < run.metrics["test/pixel_accuracy"] < 1
