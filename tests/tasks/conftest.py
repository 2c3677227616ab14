"""Data and configs small enough to train on in a second."""

import dataclasses
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from foveal.config import AugmentConfig, ClassifyConfig, DataConfig
from foveal.tasks.checkpointing import SaveRun

COLORS = {"amber": (230, 160, 30), "blue": (40, 60, 220), "coral": (240, 90, 90)}


@pytest.fixture(scope="session")
def colors(tmp_path_factory):
    """Return a folder of noisy colour patches: 3 classes, 10 train, 3 val and 5 test each."""
    root = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 3), ("test", 5)):
        for name, color in COLORS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.normal(0, 40, (24, 24, 3))
                array = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(array).save(folder / f"{i}.png")
    return root


@pytest.fixture
def config(colors, tmp_path):
    """Return a run of a few steps with everything random switched on."""
    return ClassifyConfig(
        data=DataConfig(root=str(colors), image_size=24, batch_size=6, workers=0),
        augment=AugmentConfig(hflip=0.5, min_scale=0.5, mixup=0.2),
        model="test_efficientnet",
        model_args={"drop_rate": 0.2, "drop_path_rate": 0.1},
        epochs=3,
        lr=3e-3,
        ema=True,
        ema_decay=0.9,
        device="cpu",
        threads=1,
        out=str(tmp_path / "run"),
    )


@pytest.fixture
def replaced():
    """Return a function that changes fields of a config, those of ``data`` too."""

    def replace(config, **changes):
        own = {f.name for f in dataclasses.fields(config.data)}
        data = {key: value for key, value in changes.items() if key in own}
        rest = {key: value for key, value in changes.items() if key not in own}
        return dataclasses.replace(config, data=dataclasses.replace(config.data, **data), **rest)

    return replace


@pytest.fixture
def interrupt_after():
    """Return a function that lets a run press Ctrl-C once the optimiser has made some steps."""

    def press(monkeypatch, steps):
        original = SaveRun.on_train_batch_end

        def hook(self, trainer, *args):
            if trainer.global_step == steps:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)  # Python runs the handler between two instructions
            original(self, trainer, *args)

        monkeypatch.setattr(SaveRun, "on_train_batch_end", hook)

    return press
