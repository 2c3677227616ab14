from pathlib import Path

import pytest

from foveal.data.pairing import Paired, listed_pairs, pair_folders, require_files


def test_equal_stems_at_any_depth_and_of_any_suffix(paint, paint_mask, tmp_path):
    for name in ("i/b/1.jpg", "i/a/1.JPG", "i/2.jpeg"):
        paint(name)
    for name in ("m/a/1.png", "m/b/1.png", "m/2.png"):
        paint_mask(name, [0])
    (tmp_path / "i" / "Thumbs.db").touch()
    (tmp_path / "i" / "notes.txt").touch()
    paired = pair_folders(tmp_path, tmp_path / "i", tmp_path / "m")
    assert paired.pairs == [
        ("i/2.jpeg", "m/2.png"),
        ("i/a/1.JPG", "m/a/1.png"),
        ("i/b/1.jpg", "m/b/1.png"),
    ]
    assert paired.problems == []
    assert paired.ignored == [str(tmp_path / "i" / "notes.txt")]


def test_those_without_partner_are_named(paint, paint_mask, tmp_path):
    paint("i/1.jpg")
    paint("i/alone.jpg")
    paint_mask("m/1.png", [0])
    paint_mask("m/c/other.png", [0])
    paired = pair_folders(tmp_path, tmp_path / "i", tmp_path / "m")
    assert paired.pairs == [("i/1.jpg", "m/1.png")]
    assert paired.problems == [
        f"{tmp_path}/i/alone.jpg: there is no mask alone in {tmp_path}/m",
        f"{tmp_path}/m/c/other.png: there is no picture c/other in {tmp_path}/i",
    ]


def test_two_files_of_one_stem(paint, paint_mask, tmp_path):
    paint("i/1.jpg")
    paint("i/1.png")
    paint_mask("m/1.png", [0])
    paired = pair_folders(tmp_path, tmp_path / "i", tmp_path / "m")
    assert paired.problems == [f"{tmp_path}/i/1.png: 1.jpg beside it has the same stem"]
    assert paired.pairs == [("i/1.jpg", "m/1.png")]


def test_lists_hold_ids_or_pairs_of_paths(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(
        b"2007_000032 \r\n\r\n/SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png\r\n"
        b"JPEGImages/a.jpg\tSegmentationClassAug/a.png"
    )
    assert list(listed_pairs(path)) == [
        ("2007_000032", None),
        ("train/x.png", "trainannot/x.png"),
        ("JPEGImages/a.jpg", "SegmentationClassAug/a.png"),
    ]
    path.write_text("a b c\n")
    with pytest.raises(ValueError, match=r"list\.txt: the line 'a b c' has 3 columns"):
        list(listed_pairs(path))


def test_listed_files_that_are_not_there_are_named(paint, paint_mask, tmp_path):
    paint("i/1.png")
    paint_mask("m/1.png", [0])
    paint("i/2.png")
    paired = Paired([("i/1.png", "m/1.png"), ("i/2.png", "m/2.png"), ("i/3.png", "m/1.png")])
    require_files(tmp_path, Path("list.txt"), paired)
    assert paired.pairs == [("i/1.png", "m/1.png")]
    assert paired.problems == [
        f"list.txt: there is no mask {tmp_path}/m/2.png",
        f"list.txt: there is no picture {tmp_path}/i/3.png",
    ]
