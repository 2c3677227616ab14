import os

import numpy as np
import pytest

from foveal.data import imagefolder
from foveal.data.check import check_classification
from foveal.data.classification import read_classification

WNIDS = ("n01440764", "n01443537", "n02123045")


def targets(found, part):
    return found.parts[part].targets.tolist()


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "VALID", "testing"), ("train", "validation", "test")],
)
def test_split_folders_under_their_various_names(paint_classes, tmp_path, train, val, test):
    for folder in (train, val, test):
        paint_classes(str(folder), {"dog": 2, "cat": 1})
    found = imagefolder.read(tmp_path)
    assert found.classes == ("cat", "dog")
    assert {part: targets(found, part) for part in found.parts} == {
        "train": [0, 1, 1],
        "val": [0, 1, 1],
        "test": [0, 1, 1],
    }
    assert found.origins["val"] == f"folder {val}/"
    assert found.parts["train"].name(1) == str(tmp_path / train / "dog" / "000.png")


def test_one_folder_of_class_folders(paint_classes, tmp_path):
    paint_classes(".", {"b": 1, "A": 2, "größe 日本": 1})
    found = imagefolder.read(tmp_path)
    assert found.classes == ("A", "b", "größe 日本")  # by code point, as everywhere
    assert targets(found, "all") == [0, 0, 1, 2]
    assert found.parts["all"].load(3).size == (10, 8)


def test_a_class_called_train_is_a_class(paint_classes, tmp_path):
    paint_classes(".", {"bicycle": 1, "train": 2})
    found = imagefolder.read(tmp_path)
    assert found.classes == ("bicycle", "train")
    paint_classes("train", {"bicycle": 1})
    assert "train" in imagefolder.read(tmp_path).parts


def test_classes_are_those_of_all_splits(paint_classes, tmp_path):
    paint_classes("train", {"a": 1, "c": 1})
    paint_classes("val", {"b": 1, "c": 1})
    found = imagefolder.read(tmp_path)
    assert found.classes == ("a", "b", "c")
    assert targets(found, "val") == [1, 2]


def test_pictures_in_folders_of_a_class_folder_count(paint_classes, paint, tmp_path):
    paint_classes("train", {"n01440764/images": 2, "n01443537/images": 1})
    paint("train/n01440764/images/z.JPEG", 9, format="PNG")
    found = imagefolder.read(tmp_path)
    assert found.classes == WNIDS[:2]
    assert targets(found, "train") == [0, 0, 0, 1]


def test_what_is_not_read_is_listed(paint_classes, tmp_path):
    paint_classes("train", {"a": 1, "b": 1})
    for name in ("train/a/boxes.txt", "readme.md", "extra/x.png", "train/a/Thumbs.db", ".git/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    ignored = {
        str(path).removeprefix(f"{tmp_path}/") for path in imagefolder.read(tmp_path).ignored
    }
    assert ignored == {"train/a/boxes.txt", "readme.md", "extra"}


def test_empty_class_folder_and_loose_pictures_are_problems(paint_classes, paint, tmp_path):
    paint_classes("train", {"a": 1, "b": 1})
    (tmp_path / "train" / "empty").mkdir()
    paint("val/loose.png")
    problems = imagefolder.read(tmp_path).problems
    assert problems[0] == f"{tmp_path / 'train' / 'empty'}: no pictures in this class folder"
    assert problems[1].startswith(f"{tmp_path / 'val'}: 1 pictures such as loose.png lie outside")


def test_a_class_folder_whose_name_is_not_utf_8_is_a_problem(paint_classes, tmp_path):
    paint_classes("train", {"a": 4, "b": 4})
    try:
        os.rename(tmp_path / "train" / "b", os.fsencode(tmp_path) + b"/train/caf\xe9")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    message = f"{tmp_path}/train/caf\\udce9: the name of this class folder is not UTF-8, rename it"
    assert imagefolder.read(tmp_path).problems == (message,)
    with pytest.raises(ValueError, match="is not UTF-8, rename it"):
        read_classification(tmp_path)
    report = check_classification(tmp_path)
    assert message in report.problems
    assert str(report).encode().count(b"caf\\udce9") > 1


def test_two_folders_for_one_split(paint_classes, tmp_path):
    for folder in ("train", "val", "valid"):
        paint_classes(folder, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="both val/ and valid/ would be the val part"):
        imagefolder.read(tmp_path)


def write_table(path, lines):
    path.write_bytes("\r\n".join(["\ufeffindex\twnid\tname\tincluded", *lines]).encode())


def test_wnids_with_a_table_get_its_indices(paint_classes, tmp_path):
    paint_classes("train", {WNIDS[2]: 2, WNIDS[1]: 1})
    lines = [
        f"{k}\t{wnid}\t{name}\t1" for k, (wnid, name) in enumerate(zip(WNIDS, "xyx", strict=True))
    ]
    write_table(tmp_path / "classes.tsv", reversed(lines))
    found = imagefolder.read(tmp_path)
    assert targets(found, "train") == [1, 2, 2]
    assert found.classes == ("x (n01440764)", "y", "x (n02123045)")  # names occur twice
    assert found.notes == ("2 class folders mapped to their index among 3 in classes.tsv",)
    assert not found.ignored


def test_wnids_without_a_table_are_numbered_and_it_is_said(paint_classes, tmp_path):
    paint_classes("train", {WNIDS[2]: 1, WNIDS[0]: 1})
    found = imagefolder.read(tmp_path)
    assert targets(found, "train") == [0, 1]
    assert "not by ImageNet's index" in found.notes[0]


def test_a_table_beside_other_names_is_not_used(paint_classes, tmp_path):
    paint_classes("train", {WNIDS[2]: 1, "dog": 1})
    write_table(tmp_path / "classes.tsv", [f"0\t{WNIDS[2]}\tx\t1"])
    found = imagefolder.read(tmp_path)
    assert found.classes == ("dog", WNIDS[2])
    assert found.ignored == (str(tmp_path / "classes.tsv"),)


def test_all_1000_folders_are_in_imagenets_order(tmp_path, paint):
    source = paint("picture.png")
    from timm.data import ImageNetInfo

    wnids = ImageNetInfo().label_names()
    for wnid in wnids:
        (tmp_path / "data" / "train" / wnid).mkdir(parents=True)
        (tmp_path / "data" / "train" / wnid / "a.png").symlink_to(source)
    found = imagefolder.read(tmp_path / "data")
    assert found.classes == tuple(wnids)
    assert targets(found, "train") == list(range(1000))
    assert not found.notes


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([f"0\t{WNIDS[0]}\tx\t1"], f"no line for the class folder {WNIDS[1]}"),
        ([f"1\t{WNIDS[0]}\tx\t1", f"2\t{WNIDS[1]}\ty\t1"], "must count from 0 to 1"),
        ([f"0\t{WNIDS[0]}\tx\t1", f"0\t{WNIDS[1]}\ty\t1"], "must count from 0 to 1"),
        ([f"a\t{WNIDS[0]}\tx\t1"], "must have the columns index, wnid and name"),
        (["0"], "must have the columns index, wnid and name"),
    ],
)
def test_a_table_that_does_not_fit_is_named(paint_classes, tmp_path, lines, message):
    paint_classes("train", {WNIDS[0]: 1, WNIDS[1]: 1})
    write_table(tmp_path / "classes.tsv", lines)
    with pytest.raises(ValueError, match=f"classes.tsv: .*{message}"):
        imagefolder.read(tmp_path)


def test_order_does_not_depend_on_the_file_system(paint, tmp_path):
    names = [f"{c}/{k}.png" for c in "ab" for k in (3, 1, 2)]
    for order, folder in ((names, "one"), (names[::-1], "two")):
        for name in order:
            paint(f"{folder}/{name}")
    one, two = (imagefolder.read(tmp_path / folder).parts["all"] for folder in ("one", "two"))
    assert [one.name(k)[-7:] for k in range(6)] == [two.name(k)[-7:] for k in range(6)]
    np.testing.assert_array_equal(one.targets, two.targets)


def test_no_pictures(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    assert not imagefolder.detect(tmp_path)
    with pytest.raises(ValueError, match="no pictures in it"):
        imagefolder.read(tmp_path)
