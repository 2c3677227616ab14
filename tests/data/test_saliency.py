import numpy as np
import pytest
from PIL import Image

from foveal.data import read_dense, saliency
from foveal.data.layouts import detect


@pytest.fixture
def paint_set(paint, paint_mask):
    """Return a function that stores pictures and maps of 0, 128 and 255 in two folders."""

    def save(pictures, maps, stems="ab", suffix="jpg"):
        for k, stem in enumerate(stems):
            paint(f"{pictures}/{stem}.{suffix}", k)
            paint_mask(f"{maps}/{stem}.png", [0, 128, 255])

    return save


SETS = [
    ("ECSSD", "images", "ground_truth_mask"),
    ("HKU-IS", "imgs", "gt"),
    ("PASCAL-S", "datasets/imgs/pascal", "datasets/masks/pascal"),
    ("DUT-OMRON", "DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    ("SOD", "Imgs", "Imgs"),
    ("DUTS-TE", "DUTS-TE-Image", "DUTS-TE-Mask"),
    # repacked
    ("ECSSD", "Imgs", "Imgs"),
    ("hku_is", "image", "GT"),
    ("PASCALS", "Image", "Mask"),
    ("DUTS_TE", "images", "masks"),
]


@pytest.mark.parametrize(("name", "pictures", "maps"), SETS)
def test_sets_to_be_tested_on(paint_set, tmp_path, name, pictures, maps):
    paint_set(f"{name}/{pictures}", f"{name}/{maps}")
    root = tmp_path / name
    assert detect(root) == detect(tmp_path) == "saliency"
    data = read_dense(root)
    assert (data.layout, data.task) == ("saliency", "saliency")
    assert {split: len(p) for split, p in data.splits.items()} == {"train": 0, "val": 2, "test": 2}
    test = data.splits["test"]
    assert test.name(1) == f"{root}/{pictures}/b.jpg"
    assert test.map_name(1) == f"{root}/{maps}/b.png"
    image, values = test.load(0)
    assert image.size == (10, 8)
    np.testing.assert_allclose(values[:3, 0], [0, 128 / 255, 1], atol=1e-7)
    assert test.annotations(0)[0][:3, 0].tolist() == [False, True, True]
    with pytest.raises(ValueError, match=r"there are no training pictures .*foveal eval` only"):
        data.require_training()


def test_duts_has_a_part_for_training(paint_set, tmp_path, monkeypatch):
    paint_set("DUTS/DUTS-TR/DUTS-TR-Image", "DUTS/DUTS-TR/DUTS-TR-Mask", "abcd")
    paint_set("DUTS/DUTS-TE/DUTS-TE-Image", "DUTS/DUTS-TE/DUTS-TE-Mask", "ef")
    root = tmp_path / "DUTS"
    for place in (root, tmp_path):
        data = read_dense(place, val_fraction=0.25)
        assert {s: len(p) for s, p in data.splits.items()} == {"train": 3, "val": 1, "test": 2}
    assert data.origins["test"] == "folders DUTS-TE/DUTS-TE-Image/ and DUTS-TE/DUTS-TE-Mask/"
    alone = read_dense(root / "DUTS-TR", val_fraction=0.25)
    assert {s: len(p) for s, p in alone.splits.items()} == {"train": 2, "val": 1, "test": 1}
    monkeypatch.chdir(root / "DUTS-TE")
    assert detect(tmp_path / "DUTS") == "saliency"
    assert len(read_dense(".").splits["test"]) == 2


def test_other_sets_beside_duts_are_named(paint_set, tmp_path):
    paint_set("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", "abcd")
    paint_set("ECSSD/images", "ECSSD/ground_truth_mask")
    paint_set("SOD/Imgs", "SOD/Imgs")
    data = read_dense(tmp_path)
    assert data.notes == ("beside DUTS there is ECSSD, SOD, not read: each is a root itself",)
    assert sum(len(data.splits[split]) for split in data.splits) == 4


def test_several_sets_without_duts_must_be_told_apart(paint_set, tmp_path):
    paint_set("ECSSD/images", "ECSSD/ground_truth_mask")
    paint_set("HKU-IS/imgs", "HKU-IS/gt", suffix="png")
    with pytest.raises(ValueError, match="holds several sets, ECSSD, HKU-IS: name one of them"):
        read_dense(tmp_path)
    assert len(read_dense(tmp_path / "HKU-IS").splits["test"]) == 2


def test_a_set_of_another_name_is_read_when_it_is_called_so(paint_set, tmp_path):
    paint_set("mine/images", "mine/masks", "abcdef")
    assert detect(tmp_path / "mine") == "pairs"
    data = read_dense(tmp_path / "mine", "saliency")
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 4, "val": 1, "test": 1}
    paint_set("split/train/images", "split/train/masks", "abcd")
    paint_set("split/val/images", "split/val/masks", "ef")
    data = read_dense(tmp_path / "split", "saliency")
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 4, "val": 2, "test": 2}
    with pytest.raises(ValueError, match=r"there is no folder of pictures such as images/ beside"):
        read_dense(tmp_path / "mine" / "images", "saliency")


def test_partners_missing(paint_set, paint, tmp_path):
    paint_set("ECSSD/images", "ECSSD/ground_truth_mask")
    paint("ECSSD/images/c.jpg")
    with pytest.raises(ValueError, match=r"images/c\.jpg: there is no map c in .*ground_truth_mas"):
        read_dense(tmp_path / "ECSSD")
    paint_set("SOD/Imgs", "SOD/Imgs")
    (tmp_path / "SOD" / "Imgs" / "a.png").unlink()
    paint("SOD/Imgs/x.bmp")
    found = saliency.read(tmp_path / "SOD")
    imgs = tmp_path / "SOD" / "Imgs"
    assert found.problems == (f"{imgs}/a.jpg: there is no map a in {imgs}",)
    assert found.ignored == (f"{imgs}/x.bmp",)


def test_real_stand_in(pack):
    root = pack("saliency-standin")
    data = read_dense(root)
    assert {split: len(p) for split, p in data.splits.items()} == {
        "train": 104,
        "val": 12,
        "test": 46,
    }
    test = data.splits["test"]
    shares = [test.load(index)[1].mean() for index in range(len(test))]
    assert np.mean(shares) == pytest.approx(0.18, abs=5e-4)  # of the pack's description
    with Image.open(root / "DUTS-TE" / "DUTS-TE-Mask" / "FudanPed00039.png") as mask:
        expected = np.asarray(mask) > 128
    index = next(k for k in range(46) if test.name(k).endswith("FudanPed00039.jpg"))
    assert (test.annotations(index)[0] == expected).all()
