"""Predictions of a network whose answers can be worked out by hand: the brightest channel."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import foveal
from foveal.cli import main
from foveal.config import SegmentConfig, SlidingConfig
from foveal.data.transforms import WholePreprocess
from foveal.models import TASK_NETWORKS
from foveal.tasks.run import WEIGHTS, save_weights, write_config

CLASSES = ("rouge", "vért", "blue")
COLORS = [[0, 0, 0], [10, 200, 30], [90, 0, 90]]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class Channels(nn.Module):
    """Logits of a pixel are 9 times its red, green and blue."""

    def __init__(self, **kw):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(9.0))

    def forward(self, x):
        return self.scale * x


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a run folder of that network, as training would write it."""
    monkeypatch.setitem(TASK_NETWORKS, "channels", ("segment", Channels))
    folder = tmp_path / "run"
    folder.mkdir()
    config = SegmentConfig(model="channels", sliding=SlidingConfig(window=8))
    write_config(folder, config)
    preprocess = WholePreprocess(image_size=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    more = {"colors": json.dumps(COLORS)}
    save_weights(folder / WEIGHTS, Channels(), config, CLASSES, preprocess, more)
    return folder


def stripes(path, colors, size=(12, 7)):
    """Write a picture of columns of equal width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((size[1], size[0], 3), np.uint8)
    width = size[0] // len(colors)
    for i, color in enumerate(colors):
        array[:, i * width : (i + 1) * width] = color
    Image.fromarray(array).save(path)
    return path


def test_every_pixel_at_the_pictures_own_size(run, tmp_path):
    first = stripes(tmp_path / "a.png", [RED, GREEN, GREEN])
    second = Image.new("RGB", (3, 20), BLUE)
    one, two = foveal.predict(run, [first, second])
    assert one.path == str(first)
    assert one.labels.shape == (7, 12)
    assert (one.labels == np.array([0] * 4 + [1] * 8)).all()
    assert one.shares == (("vért", pytest.approx(2 / 3)), ("rouge", pytest.approx(1 / 3)))
    assert one.colors.tolist() == COLORS
    assert str(one) == f"{first}: vért 67%, rouge 33%"
    assert (two.path, two.labels.shape, two.shares) == ("", (20, 3), (("blue", 1.0),))


def test_what_is_written(run, tmp_path):
    a = stripes(tmp_path / "pictures" / "a.png", [RED, GREEN, GREEN])
    b = stripes(tmp_path / "pictures" / "deep" / "A.png", [BLUE])
    (tmp_path / "pictures" / "broken.png").write_bytes(b"nothing")
    found = foveal.predict(run, tmp_path / "pictures", on_error="skip")
    out = tmp_path / "out"
    written = found.save(out)
    assert {path.name for path in written} == {
        "predictions.json",
        "predictions.csv",
        "masks",
        "overlays",
        "legend.png",
    }
    assert all(path.exists() for path in written)
    report = json.loads((out / "predictions.json").read_text())
    assert [row["path"] for row in report["predictions"]] == [str(a), str(b)]
    assert len(report["damaged"]) == 1
    row = report["predictions"][0]
    assert row["shares"] == {"vért": pytest.approx(2 / 3), "rouge": pytest.approx(1 / 3)}
    masks = [row["mask"] for row in report["predictions"]]
    assert masks == ["masks/a.png", "masks/A_00002.png"]  # one file on disks that know no case
    with Image.open(out / masks[0]) as mask, Image.open(out / row["overlay"]) as tinted:
        assert (mask.mode, mask.size) == ("P", (12, 7))
        assert (np.asarray(mask) == np.array([0] * 4 + [1] * 8)).all()
        assert np.asarray(mask.convert("RGB"))[0, -1].tolist() == COLORS[1]
        assert (tinted.mode, tinted.size) == ("RGB", (12, 7))
        assert np.asarray(tinted)[0, 0].tolist() == [255, 0, 0]  # red, its class is black
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["mask"], r["label"], r["share"]) for r in rows] == [
        ("masks/a.png", "vért", "0.666667"),
        ("masks/A_00002.png", "blue", "1.000000"),
    ]


def test_pixels_without_an_answer(run):
    model = foveal.load(run)
    with torch.no_grad():
        model.scale.fill_(torch.nan)
    save_weights(
        run / WEIGHTS,
        model,
        SegmentConfig(model="channels"),
        CLASSES,
        model.preprocess,
        {"colors": json.dumps(COLORS)},
    )
    (item,) = foveal.predict(run, Image.new("RGB", (4, 4)))
    assert (item.labels == 255).all()
    assert item.shares == ()
    assert str(item).endswith("(none)")


def test_a_picture_that_went_away_has_no_overlay(run, tmp_path):
    path = stripes(tmp_path / "a.png", [RED])
    found = foveal.predict(run, path)
    path.unlink()
    found.save(tmp_path / "out")
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert row["overlay"] == ""
    assert (tmp_path / "out" / row["mask"]).is_file()


def test_the_command(run, tmp_path, capsys):
    path = stripes(tmp_path / "a.png", [BLUE, GREEN, BLUE])
    assert main(["predict", str(run), str(path), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert f"{path}: blue 67%, vért 33%" in out
    assert f"wrote {tmp_path / 'out' / 'legend.png'}" in out
