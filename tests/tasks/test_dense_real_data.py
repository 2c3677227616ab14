"""A dense run on real pictures of three sets, from the layouts in which they are distributed."""

import csv
import math
import os
from pathlib import Path

import pytest

import foveal
from foveal.cli import main

needs_data = pytest.mark.skipif(
    not os.environ.get("FOVEAL_DATA_ROOT"), reason="FOVEAL_DATA_ROOT is not set"
)
SETS = {
    "saliency": ("saliency-standin", "saliency"),
    "edge": ("BSDS500", "bsds500"),
    "skeleton": ("skeleton-standin", "sk_large"),
}


@needs_data
@pytest.mark.slow
def test_three_sets_train_together_by_one_command(tmp_path, capsys):
    root, folder = Path(os.environ["FOVEAL_DATA_ROOT"]), tmp_path / "run"
    flags = "--max_steps 4 --data.image_size 64 --data.batch_size 6 --data.workers 0 --device cpu"
    flags += " --backbone test_efficientnet --scores.thresholds 3 --scores.val_thresholds 1"
    sets = [f"--data.{task}.root={root / name}" for task, (name, _) in SETS.items()]
    assert main(["train", "dense", *sets, *flags.split(), "--out", str(folder)]) == 0
    assert "data: edge" in capsys.readouterr().out
    run = foveal.tasks.run.open_run(folder)
    assert {task: run.config.data.of(task).layout for task in SETS} == {
        task: layout for task, (_, layout) in SETS.items()
    }
    for name in ("saliency/max_f", "edge/ods", "skeleton/ods", "mean"):
        assert 0 < run.metrics[f"test/{name}"] < 1
    (row,) = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    assert row["step"] == "4"
    assert math.isfinite(float(row["train/loss"]))
    assert (folder / "report.html").is_file()
