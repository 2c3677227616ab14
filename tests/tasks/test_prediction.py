"""Predictions of a network whose answers can be worked out by hand: logits are mean colours."""

import csv
import dataclasses
import json
import logging
import math
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import foveal
from foveal.config import ClassifyConfig
from foveal.data.pictures import DamagedPictureError
from foveal.data.transforms import Preprocess
from foveal.models import TASK_NETWORKS
from foveal.tasks.run import WEIGHTS, save_weights, write_config

RED, GREEN, YELLOW, BLACK = (255, 0, 0), (0, 255, 0), (255, 255, 0), (0, 0, 0)
CLASSES = ("rouge", "vért", "blue")


class MeanColor(nn.Module):
    """Logits are 10 times the mean of red, green and blue, less 5."""

    def __init__(self, **kw):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        return self.scale * x.mean((2, 3)) - 5


def paint(path, color, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Return a function that writes a run folder of that network, as training would."""
    monkeypatch.setitem(TASK_NETWORKS, "mean_color", ("classify", MeanColor))

    def make(**changes):
        folder = tmp_path / "run"
        folder.mkdir()
        config = ClassifyConfig(model="mean_color", **changes)
        write_config(folder, config)
        preprocess = Preprocess(image_size=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        save_weights(folder / WEIGHTS, MeanColor(), config, CLASSES, preprocess)
        return folder

    return make


@pytest.fixture
def run(make_run):
    return make_run()


def test_probabilities_by_hand(run):
    (item,) = foveal.predict(run, Image.new("RGB", (9, 5), (255, 51, 0)))
    # Logits 5, 10 * 0.2 - 5 = -3 and -5.
    total = math.exp(5) + math.exp(-3) + math.exp(-5)
    assert (item.path, item.label) == ("", "rouge")
    assert item.probability == pytest.approx(math.exp(5) / total)
    assert [name for name, _ in item.top] == ["rouge", "vért", "blue"]
    expected = [math.exp(z) / total for z in (5, -3, -5)]
    assert [p for _, p in item.top] == pytest.approx(expected, rel=1e-5)


def test_several_labels_are_those_above_one_half(make_run):
    colors = (YELLOW, BLACK, GREEN)
    found = foveal.predict(
        make_run(multi_label=True), [Image.new("RGB", (4, 4), color) for color in colors]
    )
    assert [item.label for item in found] == ["rouge;vért", "", "vért"]
    high, low = 1 / (1 + math.exp(-5)), 1 / (1 + math.exp(5))
    assert [item.probability for item in found] == pytest.approx([high, low, high])


def test_pictures_folders_and_objects_mixed_keep_their_order(run, tmp_path):
    data = tmp_path / "data"
    paint(data / "b.PNG", RED)
    paint(data / "a" / "ümlaut with blank.png", GREEN)
    paint(data / "a" / "deep" / "1.png", RED)
    paint(data / ".hidden" / "1.png", RED)
    (data / "notes.txt").write_text("no picture")
    single = paint(tmp_path / "single.png", GREEN)
    found = foveal.predict(run, [str(single), Image.new("L", (4, 4), 9), data, single])
    assert [(item.path, item.label) for item in found] == [
        (str(single), "vért"),
        ("", "rouge"),  # grey: all three alike, the first is named
        (str(data / "a" / "deep" / "1.png"), "rouge"),
        (str(data / "a" / "ümlaut with blank.png"), "vért"),
        (str(data / "b.PNG"), "rouge"),
        (str(single), "vért"),
    ]
    assert list(found[1:3]) == [found[1], found[2]]


def test_more_pictures_than_a_batch_and_a_sheet(run, tmp_path):
    colors = [RED, GREEN, YELLOW] * 30
    pictures = [Image.new("RGB", (4, 4), color) for color in colors]
    found = foveal.predict(run, pictures)
    assert [item.label for item in found] == ["rouge", "vért", "rouge"] * 30
    written = foveal.predict(run, pictures[:41]).save(tmp_path / "out")
    assert [p.name for p in written] == [
        "predictions.json",
        "predictions.csv",
        "predictions_001.png",
        "predictions_002.png",
    ]


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "L", "CMYK", "1"])
def test_an_object_is_read_as_its_file(run, tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((6, 6), 40000, dtype=np.uint16))
    else:
        image = Image.new("RGBA", (6, 6), (200, 90, 30, 40))
        image = image.convert("RGB").convert(mode) if mode != "RGBA" else image
    path = tmp_path / "picture.tif"
    image.save(path)
    of_object, of_file = foveal.predict(run, [image, path])
    assert of_object.top == of_file.top
    assert (image.mode, image.size) == (mode, (6, 6))


def test_the_middle_square_is_seen_and_an_object_is_left_as_it_was(run):
    image = Image.new("RGB", (400, 200), BLACK)
    image.paste(RED, (0, 0, 50, 200))
    before = image.tobytes()
    (item,) = foveal.predict(run, image)
    assert item.probability == pytest.approx(1 / 3)  # of black
    assert image.size == (400, 200)
    assert image.tobytes() == before


def test_damaged_pictures_stop_or_are_listed(run, tmp_path):
    good, bad = paint(tmp_path / "good.png", GREEN), tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:40])
    with pytest.raises(DamagedPictureError, match=r"bad\.png: not a picture"):
        foveal.predict(run, [good, bad])
    found = foveal.predict(run, [bad, good], on_error="skip")
    assert [item.path for item in found] == [str(good)]
    (complaint,) = found.damaged
    assert complaint.startswith(f"{bad}: ")
    written = found.save(tmp_path / "out")
    assert json.loads(written[0].read_text())["damaged"] == [complaint]


def test_an_object_that_is_damaged_is_named_by_its_file(run, tmp_path):
    good, bad = paint(tmp_path / "good.png", GREEN, (90, 90)), tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:-60])
    with Image.open(bad) as image, pytest.raises(DamagedPictureError, match=r"bad\.png: will not"):
        foveal.predict(run, image)


def test_what_is_saved(run, tmp_path):
    path = paint(tmp_path / 'a "b", ü.png', GREEN)
    found = foveal.predict(run, [path, Image.new("RGB", (300, 20), RED)])
    written = found.save(tmp_path / "new" / "out")
    assert sorted(p.name for p in (tmp_path / "new" / "out").iterdir()) == sorted(
        p.name for p in written
    )
    rows = json.loads(written[0].read_text(encoding="utf-8"))["predictions"]
    assert [(row["path"], row["label"]) for row in rows] == [(str(path), "vért"), ("", "rouge")]
    assert rows[0]["top"][0] == {"label": "vért", "probability": found[0].probability}
    with written[1].open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["path"] for row in table] == [str(path), ""]
    assert float(table[0]["probability"]) == pytest.approx(found[0].probability, abs=1e-6)
    with Image.open(written[2]) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    for color in (GREEN, RED):
        assert (pixels == color).all(1).sum() > 100


def test_pictures_with_a_path_are_not_kept_in_memory(run, tmp_path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (160, 160, 3), dtype=np.uint8))
    noise.save(tmp_path / "noise.png")
    found = foveal.predict(run, tmp_path / "noise.png")
    assert len(pickle.dumps(found)) < 2000
    (tmp_path / "noise.png").unlink()
    assert (tmp_path / "out" / "predictions_001.png") in found.save(tmp_path / "out")


def test_names_that_matplotlib_would_read_as_mathematics(run, tmp_path):
    found = foveal.predict(run, paint(tmp_path / "$x_$.png", GREEN))
    item = dataclasses.replace(found[0], label="$a^$")
    assert len(dataclasses.replace(found, items=(item,)).save(tmp_path / "out")) == 3


def test_letters_that_the_font_lacks_are_told_once(run, tmp_path, caplog):
    found = foveal.predict(
        run, [paint(tmp_path / f"\u4e2d\u6587{k}.png", GREEN) for k in range(41)]
    )
    with caplog.at_level(logging.WARNING):
        found.save(tmp_path / "out")
    (record,) = caplog.records
    assert "boxes stand there" in record.getMessage()


def test_file_names_that_are_not_utf_8(run, tmp_path):
    good = paint(tmp_path / "good.png", GREEN)
    path, bad = (os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/\xe9.png", b"/\xe8.png"))
    try:
        os.link(good, path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with open(bad, "wb"):
        pass
    found = foveal.predict(run, [path, bad], on_error="skip")
    assert found[0].path == path
    written = found.save(tmp_path / "out")
    saved = json.loads(written[0].read_text(encoding="utf-8"))
    assert saved["predictions"][0]["path"] == f"{tmp_path}/\\udce9.png"
    assert saved["damaged"] == [f"{tmp_path}/\\udce8.png: the file is empty"]
    assert f"{tmp_path}/\\udce9.png,vért," in written[1].read_text(encoding="utf-8")


def test_nothing_that_opens_is_saved_as_nothing(run, tmp_path):
    bad = tmp_path / "empty.png"
    bad.touch()
    found = foveal.predict(run, bad, on_error="skip")
    assert len(found) == 0
    written = found.save(tmp_path / "out")
    assert [p.name for p in written] == ["predictions.json", "predictions.csv"]
    assert written[1].read_text() == "path,label,probability\n"


def test_wrong_sources_are_one_sentence(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there is no picture in this folder"):
        foveal.predict(run, tmp_path / "empty")
    with pytest.raises(ValueError, match="there is no such picture or folder"):
        foveal.predict(run, tmp_path / "missing.png")
    with pytest.raises(ValueError, match="this is not a run folder"):
        foveal.predict(tmp_path / "empty", [])
    with pytest.raises(TypeError, match="must be a path or a PIL image, not ndarray"):
        foveal.predict(run, [np.zeros((4, 4, 3), dtype=np.uint8)])


def test_a_gpu_that_is_not_there(run):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="PyTorch sees no GPU here"):
        foveal.predict(run, Image.new("RGB", (4, 4)), device="cuda")
