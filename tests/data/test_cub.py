import numpy as np
import pytest

from foveal.cli import main
from foveal.data import cub, read_classification
from foveal.data.check import check_classification

CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")


@pytest.fixture
def write(tmp_path, paint):
    """Return a function that writes a miniature; lines of each file can be replaced.

    Pictures 1 to 12, four of each class in turn, every even one for training.
    """

    def save(end: bytes = b"\n", last: bytes = b"\n", **lines):
        folder = tmp_path / "CUB_200_2011"
        names = [f"{CLASSES[k % 3]}/Bird_{k:04}.jpg" for k in range(12)]
        for k, name in enumerate(names):
            paint(f"CUB_200_2011/images/{name}", k)
        content = {
            "classes": [f"{k + 1} {name}" for k, name in enumerate(CLASSES)],
            "images": [f"{k + 1} {name}" for k, name in enumerate(names)],
            "image_class_labels": [f"{k + 1} {k % 3 + 1}" for k in reversed(range(12))],
            "train_test_split": [f"{k + 1} {k % 2}" for k in range(12)],
            "bounding_boxes": [f"{k + 1} 1.0 2.0 3.0 4.0" for k in range(12)],
        }
        for name, own in {**content, **lines}.items():
            path = folder / f"{name}.txt"
            path.write_bytes(end.join(line.encode() for line in own) + last)
        return folder

    return save


@pytest.mark.parametrize(("end", "last"), [(b"\n", b"\n"), (b"\r\n", b"\r\n"), (b"\n", b"")])
def test_files_are_joined_on_the_id(write, tmp_path, end, last):
    folder = write(end, last)
    for root in (tmp_path, folder):
        assert cub.detect(root)
        found = cub.read(root)
        assert found.root == str(folder)
        assert found.classes == (
            "Black footed Albatross",
            "Laysan Albatross",
            "Red winged Blackbird",
        )
        train, test = found.parts["train"], found.parts["test"]
        assert train.targets.dtype == np.int64
        # Pictures 2, 4, ... 12 are for training: classes 2 1 3 2 1 3, counted from 1.
        assert train.targets.tolist() == [1, 0, 2, 1, 0, 2]
        assert test.targets.tolist() == [0, 2, 1, 0, 2, 1]
        assert train.name(0) == str(folder / "images" / CLASSES[1] / "Bird_0001.jpg")
        for part in (train, test):
            for k in range(len(part)):
                assert CLASSES[part.targets[k]] in part.name(k)
                assert part.load(k).size == (10, 8)
    assert found.origins["train"] == "pictures with 1 in train_test_split.txt"
    assert not found.problems
    assert not found.ignored


def test_auto_finds_it_and_draws_validation_from_training(write, tmp_path):
    folder = write()
    for root in (tmp_path, folder):
        data = read_classification(root, val_fraction=0.5)
        assert data.layout == "cub"
        assert {s: len(p) for s, p in data.splits.items()} == {"train": 3, "val": 3, "test": 6}


def test_a_grey_picture_is_read_and_an_unlisted_one_told(write, paint, tmp_path, capsys):
    from PIL import Image

    folder = write()
    grey = folder / "images" / CLASSES[0] / "Bird_0000.jpg"
    Image.open(grey).convert("L").save(grey)
    paint("CUB_200_2011/images/new/bird.jpg", 99)
    report = check_classification(tmp_path)
    assert report.problems == ()
    assert report.modes == {"L": 1, "RGB": 11}
    assert report.ignored == (str(folder / "images" / "new" / "bird.jpg"),)
    assert main(["data", "check", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path}: layout cub, 3 classes" in shown
    assert "  Red winged Blackbird" in shown
    grey.unlink()
    damaged = check_classification(tmp_path).damaged_files
    assert damaged == (f"{grey}: there is no such file",)


def test_names_stay_as_they_are_where_they_would_become_equal(write, tmp_path):
    write(classes=["1 001.Owl", "2 002.Owl", "3 003.Gull"])
    assert cub.read(tmp_path).classes == ("001.Owl", "002.Owl", "003.Gull")


IDS = range(1, 13)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            {"image_class_labels": [f"{k} 1" for k in IDS if k != 7]},
            r"image_class_labels\.txt: has no picture 7, but images\.txt has",
        ),
        (
            {"train_test_split": [f"{k} 1" for k in (*IDS, 13)]},
            r"images\.txt: has no picture 13, but train_test_split\.txt has",
        ),
        (
            {"image_class_labels": [f"{k} {k // 4 + 1}" for k in IDS]},
            r"image_class_labels\.txt: picture 12 has '4', where 1 to 3 is expected",
        ),
        (
            {"image_class_labels": [f"{k} {k % 3}" for k in IDS]},
            r"image_class_labels\.txt: picture 3 has '0', where 1 to 3 is expected",
        ),
        (
            {"train_test_split": [f"{k} yes" for k in IDS]},
            r"train_test_split\.txt: picture 1 has 'yes', where 0 to 1 is expected",
        ),
        (
            {"train_test_split": [f"{k} 1" for k in IDS]},
            r"train_test_split\.txt: no picture has 0, which means test",
        ),
        (
            {"classes": ["0 a", "1 b", "2 c"]},
            r"classes\.txt: the classes must be numbered from 1 to 3, each once",
        ),
        (
            {"classes": ["1 a", "2 b", "3 a"]},
            r"classes\.txt: the class name 'a' stands there twice",
        ),
        (
            {"images": [f"{k} {min(k, 11)}.jpg" for k in IDS]},
            r"images\.txt: picture 11\.jpg stands there twice",
        ),
        ({"images": ["1 a.jpg", "1 b.jpg"]}, r"images\.txt: two lines begin with 1"),
    ],
)
def test_what_does_not_fit_is_named(write, tmp_path, lines, message):
    folder = write(**lines)
    with pytest.raises(ValueError, match=f"^{folder}/{message}$"):
        read_classification(tmp_path)


@pytest.mark.parametrize(
    "name", ["classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt"]
)
def test_a_missing_file_is_named(write, tmp_path, name):
    path = write() / name
    path.unlink()
    with pytest.raises(ValueError, match=f"^{path}: there is no such file$"):
        read_classification(tmp_path)


def test_no_files(paint_classes, tmp_path):
    paint_classes("images", {"a": 1, "b": 1})
    (tmp_path / "images.txt").write_text("1 a/000.png\n")
    assert not cub.detect(tmp_path)
    assert not cub.detect(tmp_path / "images.txt")
    with pytest.raises(ValueError, match=r"no files of CUB-200-2011 such as image_class_labels"):
        cub.read(tmp_path)
