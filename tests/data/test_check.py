import shutil

import numpy as np
import pytest
from PIL import Image

from foveal.data.check import check_classification


def test_sound_data_have_no_problems(paint_classes, tmp_path):
    paint_classes(".", {"cat": 10, "dog": 20})
    calls = []
    report = check_classification(
        tmp_path, progress=lambda done, total: calls.append((done, total))
    )
    assert report.problems == ()
    assert not report.damaged
    assert report.counts == {"train": (8, 16), "val": (1, 2), "test": (1, 2)}
    assert report.sizes == {(10, 8): 30}
    assert report.modes == {"RGB": 30}
    assert calls == [(k, 30) for k in range(1, 31)]
    text = str(report)
    for line in (
        f"{tmp_path}: layout imagefolder, 2 classes",
        "  test          3 pictures  10 % of folder",
        "  train  min 8, median 12, max 16",
        "  dog      16       2       2",
        "width: min 10, median 10, max 10 pixels",
        "height: min 8, median 8, max 8 pixels",
        "modes: RGB 30",
    ):
        assert line in text
    assert text.endswith("no problems")


def test_damage_modes_sizes_duplicates_and_strays(paint_classes, paint, tmp_path):
    for split, seed in (("train", 0), ("val", 100), ("test", 200)):
        paint_classes(split, {"a": 2, "b": 2}, seed)
    shutil.copy(tmp_path / "train/a/000.png", tmp_path / "val/b/copy.png")
    with Image.open(tmp_path / "train/a/001.png") as image:  # equal pixels in other bytes
        image.save(tmp_path / "train/b/same.bmp")
    Image.new("CMYK", (40, 30)).save(tmp_path / "train/a/c.jpg")
    Image.fromarray(np.full((5, 5), 700, np.uint16)).save(tmp_path / "train/a/d.png")
    frames = [Image.new("L", (6, 6), v) for v in (0, 255)]
    frames[0].save(tmp_path / "train/a/e.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "train/a/zero.jpg").touch()
    cut = paint("test/b/cut.jpg", size=(64, 64))
    cut.write_bytes(cut.read_bytes()[:700])
    (tmp_path / "train/a/notes.txt").touch()
    report = check_classification(tmp_path)
    assert report.damaged
    assert [line.split(": ")[0] for line in report.damaged_files] == [
        str(tmp_path / "train/a/zero.jpg"),
        str(cut),
    ]
    assert report.modes["CMYK"] == report.modes["I;16"] == 1
    assert [count for mode, count in report.modes.items() if "animated" in mode] == [1]
    assert report.sizes[40, 30] == 1
    across, inside = sorted(report.duplicates, key=lambda group: group[1][0].endswith("bmp"))
    assert across == (
        ("train", str(tmp_path / "train/a/000.png")),
        ("val", str(tmp_path / "val/b/copy.png")),
    )
    assert inside == (
        ("train", str(tmp_path / "train/a/001.png")),
        ("train", str(tmp_path / "train/b/same.bmp")),
    )
    assert report.problems[0] == "pictures that will not open: 2"
    assert report.problems[1].startswith("pictures found in more than one split: 1, such as")
    assert len(report.problems) == 2
    text = str(report)
    assert f"not read: 1\n  {tmp_path / 'train/a/notes.txt'}" in text
    assert f"{tmp_path / 'train/a/zero.jpg'}: the file is empty" in text


def test_what_would_stop_training_is_listed_not_raised(paint_classes, tmp_path):
    paint_classes("train", {"a": 2, "b": 2})
    paint_classes("val", {"a": 1}, 50)
    (tmp_path / "train" / "empty").mkdir()
    report = check_classification(tmp_path)
    assert report.problems == (
        f"{tmp_path / 'train' / 'empty'}: no pictures in this class folder",
        f"{tmp_path}: val has no pictures of 'b'",
    )
    paint_classes("small", {"a": 3, "b": 1})
    report = check_classification(tmp_path / "small")
    assert len(report.problems) == 1
    assert "class 'b' has too few pictures" in report.problems[0]
    assert report.counts == {"all": (3, 1)}


def test_long_lists_are_cut_at_ten(paint_classes, tmp_path):
    paint_classes(".", {"a": 4, "b": 4})
    for k in range(13):
        (tmp_path / "a" / f"{k:02}.txt").touch()
    text = str(check_classification(tmp_path))
    assert "not read: 13\n" in text
    assert "09.txt\n  … and 3 more" in text
    assert "10.txt" not in text


def test_pictures_used_twice_are_looked_at_once(paint_classes, tmp_path):
    paint_classes("val", {"a": 2, "b": 2})
    report = check_classification(tmp_path)
    assert sum(report.sizes.values()) == 4
    assert report.pictures == {"train": 0, "val": 4, "test": 4}
    assert report.duplicates == ()
    assert report.origins["test"].startswith("same pictures as val")


def test_data_that_cannot_be_read_at_all_raise(tmp_path):
    with pytest.raises(ValueError, match="no pictures in it"):
        check_classification(tmp_path)


def test_built_in_pictures_are_sound():
    report = check_classification(None)
    assert not report.damaged
    assert report.modes == {"L": 8000}
    assert str(report).startswith("built-in pictures: layout fashion, 10 classes")


def test_real_imagenet_samples(pack):
    report = check_classification(pack("imagenet-samples"))
    assert report.pictures["val"] == 200
    assert sum(report.counts["val"]) == 200
    assert report.problems == ()
    assert max(min(size) for size in report.sizes) == 224  # said in the set's description
