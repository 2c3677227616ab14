import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import Flowers102

from foveal.data import flowers, read_classification
from foveal.data.check import check_classification

LABELS = [77, 1, 51, 77, 1, 51, 77, 1, 51, 102]  # of pictures 1 to 10; nothing lists 10
IDS = {"trnid": [6, 2, 1], "valid": [3, 4, 5], "tstid": [9, 8, 7]}


@pytest.fixture
def write(tmp_path, paint):
    """Return a function that writes a miniature; the variables can be replaced."""

    def save(**variables):
        folder = tmp_path / "flowers-102"
        for k in range(1, 11):
            paint(f"flowers-102/jpg/image_{k:05}.jpg", k)
        content = {"labels": LABELS, **IDS, **variables}
        rows = {name: np.array([x], dtype=np.uint16) for name, x in content.items()}
        savemat(folder / "imagelabels.mat", {"labels": rows.pop("labels")}, do_compression=True)
        savemat(folder / "setid.mat", rows, do_compression=True)
        return folder

    return save


def test_splits_and_labels_are_joined_on_the_number(write, tmp_path):
    folder = write()
    for root in (tmp_path, folder):
        assert flowers.detect(root)
        found = flowers.read(root)
        shown = {
            split: [found.classes[k] for k in part.targets] for split, part in found.parts.items()
        }
        assert shown == {
            "train": ["petunia", "pink primrose", "passion flower"],
            "val": ["petunia", "passion flower", "pink primrose"],
            "test": ["petunia", "pink primrose", "passion flower"],
        }
        assert found.parts["train"].targets.tolist() == [50, 0, 76]
        assert found.parts["train"].name(0) == str(folder / "jpg" / "image_00006.jpg")
        assert found.ignored == (str(folder / "jpg" / "image_00010.jpg"),)
    assert len(found.classes) == 102
    assert found.origins["train"] == "trnid of setid.mat"
    assert "some papers train on its tstid and test on its trnid" in found.notes[0]


def test_torchvision_reads_the_same(write, tmp_path, monkeypatch):
    write()
    monkeypatch.setattr(Flowers102, "_check_integrity", lambda self: True)  # MD5 of the whole set
    found = flowers.read(tmp_path)
    for split, ours in found.parts.items():
        theirs = Flowers102(tmp_path, split)
        assert len(ours) == len(theirs)
        for k, (image, target) in enumerate(theirs):
            assert ours.targets[k] == target
            assert ours.load(k).tobytes() == image.tobytes()


def test_auto_finds_it_with_its_three_splits(write, tmp_path):
    folder = write()
    grey = folder / "jpg" / "image_00004.jpg"
    Image.open(grey).convert("L").save(grey)
    for root in (tmp_path, folder):
        data = read_classification(root)
        assert data.layout == "flowers"
        assert {s: len(p) for s, p in data.splits.items()} == dict.fromkeys(data.splits, 3)
    report = check_classification(tmp_path)
    assert report.problems == ()
    assert report.modes == {"L": 1, "RGB": 8}
    grey.unlink()
    damaged = check_classification(tmp_path).damaged_files
    assert damaged == (f"{grey}: there is no such file",)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"labels": [*LABELS[:9], 103]}, "imagelabels.mat: 'labels' .* from 1 to 102, not 103"),
        ({"labels": [0, *LABELS[1:]]}, "imagelabels.mat: 'labels' .* from 1 to 102, not 0"),
        ({"tstid": [7, 11]}, "setid.mat: 'tstid' must be whole numbers from 1 to 10, not 11"),
        ({"valid": [0, 3]}, "setid.mat: 'valid' must be whole numbers from 1 to 10, not 0"),
        (
            {"tstid": [7, 2]},
            "setid.mat: tstid: picture image_00002.jpg is in .*setid.mat: trnid too",
        ),
        ({"tstid": [7, 7]}, "setid.mat: tstid: picture image_00007.jpg stands there twice"),
        ({"trnid": []}, "setid.mat: 'trnid' must be a row of numbers"),
    ],
)
def test_numbers_that_do_not_fit_are_named(write, tmp_path, variables, message):
    folder = write(**variables)
    with pytest.raises(ValueError, match=f"^{folder}/{message}$"):
        read_classification(tmp_path)


@pytest.mark.parametrize("name", ["imagelabels.mat", "setid.mat"])
def test_missing_and_damaged_files_are_named(write, tmp_path, name):
    path = write() / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"^{path}: will not read as a MATLAB file \("):
        read_classification(tmp_path)
    savemat(path, {"x": 1})
    with pytest.raises(ValueError, match=f"^{path}: no variable '(labels|trnid)' in it$"):
        read_classification(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=f"^{path}: there is no such file$"):
        read_classification(tmp_path)


def test_no_files(paint_classes, tmp_path):
    paint_classes(".", {"jpg": 1})
    assert not flowers.detect(tmp_path)
    with pytest.raises(ValueError, match=r"no files of Flowers-102 such as imagelabels\.mat in it"):
        flowers.read(tmp_path)
