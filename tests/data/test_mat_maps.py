import numpy as np
import pytest

from foveal.data.mat_maps import first_variable, read_folders
from foveal.data.sk_large import read_truth

LINE = np.eye(8, 10, dtype=np.uint8)


def test_undivided_folders_are_one_part(paint, write_skeleton, tmp_path):
    for stem in "ab":
        paint(f"images/{stem}.jpg")
        write_skeleton(f"groundTruth/{stem}.mat", LINE)
    found = read_folders(tmp_path, read_truth)
    assert {split: len(part) for split, part in found.parts.items()} == {"all": 2}
    assert found.origins == {"all": "folders images/ and groundTruth/"}


def test_a_split_without_truth_is_left_out_and_noted(paint, write_skeleton, tmp_path):
    for split in ("train", "test"):
        paint(f"images/{split}/{split}.jpg")
    write_skeleton("groundTruth/train/train.mat", LINE)
    (tmp_path / "groundTruth" / "train" / "list.txt").touch()
    found = read_folders(tmp_path, read_truth)
    assert list(found.parts) == ["train"]
    assert found.notes == ("test is not read: there is no folder groundTruth/test",)
    assert found.ignored == (f"{tmp_path}/groundTruth/train/list.txt",)


def test_what_is_missing_is_named(paint, write_skeleton, tmp_path):
    paint("images/train/a.jpg")
    with pytest.raises(ValueError, match="there is no folder groundTruth/ in it"):
        read_folders(tmp_path, read_truth)
    write_skeleton("groundTruth/train/b.mat", LINE)
    truth, images = tmp_path / "groundTruth" / "train", tmp_path / "images" / "train"
    assert read_folders(tmp_path, read_truth).problems == (
        f"{images}/a.jpg: there is no truth a in {truth}",
        f"{truth}/b.mat: there is no picture b in {images}",
    )


def test_a_picture_in_two_splits_is_an_error(paint, write_skeleton, tmp_path):
    for split in ("train", "test"):
        paint(f"images/{split}/a.jpg")
        write_skeleton(f"groundTruth/{split}/a.mat", LINE)
    with pytest.raises(ValueError, match=r"images/test: picture a is in .*images/train too"):
        read_folders(tmp_path, read_truth)


def test_the_variable_tells_the_layouts_apart(paint, write_skeleton, tmp_path):
    assert first_variable(tmp_path, "symmetry") is None
    paint("images/a.jpg")
    (tmp_path / "groundTruth").mkdir()
    assert first_variable(tmp_path, "symmetry") is None
    write_skeleton("groundTruth/a.mat", LINE)
    assert first_variable(tmp_path, "symmetry", "groundTruth") == "symmetry"
    assert first_variable(tmp_path, "groundTruth") is None
    (tmp_path / "groundTruth" / "a.mat").write_bytes(b"x")
    assert first_variable(tmp_path, "symmetry") is None
    write_skeleton("groundTruth/b.mat", LINE)
    assert first_variable(tmp_path, "symmetry") == "symmetry"
