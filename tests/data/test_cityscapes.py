import numpy as np
import pytest

from foveal.data import cityscapes, read_segmentation
from foveal.data.layouts import detect

# labelIds -> trainIds of the official scripts; all others are ignored.
TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
    26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip


@pytest.fixture
def write(paint, paint_mask, tmp_path):
    def save(ends=("labelIds",)):
        for split, city, count in (
            ("train", "aachen", 2),
            ("val", "lindau", 2),
            ("test", "bonn", 1),
        ):
            for k in range(count):
                stem = f"{split}/{city}/{city}_000000_{k:06}"
                paint(f"leftImg8bit/{stem}_leftImg8bit.png", k, size=(10, 34))
                paint(f"gtFine/{stem}_gtFine_color.png", k, size=(10, 34))
                (tmp_path / f"gtFine/{stem}_gtFine_polygons.json").touch()
                paint_mask(f"gtFine/{stem}_gtFine_instanceIds.png", [26001], "I;16", (10, 34))
                for end in ends:
                    values = range(34) if end == "labelIds" else [0, 18, 255]
                    paint_mask(f"gtFine/{stem}_gtFine_{end}.png", values, size=(10, 34))
        return tmp_path

    return save


def test_raw_ids_are_mapped(write):
    root = write()
    assert detect(root) == "cityscapes"
    data = read_segmentation(root)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 2, "val": 2, "test": 2}
    labels = data.splits["val"].load(1)[1]
    assert labels[:, 0].tolist() == [TRAIN_IDS.get(k, 255) for k in range(34)]
    assert (len(data.classes), data.classes[0], data.classes[13], data.classes[18]) == (
        19,
        "road",
        "car",
        "bicycle",
    )
    assert data.colors[13].tolist() == [0, 0, 142]
    assert data.notes == ("test is not read: its labels are not public",)
    assert data.origins["train"] == "folder train/, masks *_gtFine_labelIds.png"


def test_train_ids_are_taken_where_they_are(write):
    found = cityscapes.read(write(("labelIds", "labelTrainIds")))
    assert (
        found.parts["train"].mask_name(0).endswith("aachen_000000_000000_gtFine_labelTrainIds.png")
    )
    assert np.unique(found.parts["train"].load(0)[1]).tolist() == [0, 18, 255]


def test_what_is_wrong(write, paint_mask):
    root = write()
    mask = root / "gtFine/val/lindau/lindau_000000_000001_gtFine_labelIds.png"
    mask.unlink()
    found = cityscapes.read(root)
    assert found.problems == (
        f"{root}/leftImg8bit/val/lindau/lindau_000000_000001_leftImg8bit.png: there is no mask "
        f"lindau/lindau_000000_000001 in {root}/gtFine/val",
    )
    paint_mask("gtFine/train/aachen/aachen_000000_000000_gtFine_labelIds.png", [34], size=(10, 34))
    with pytest.raises(ValueError, match=r"has the value 34 in 340 pixels, where 0 to 33 and 255"):
        cityscapes.read(root).parts["train"].load(0)
    (root / "leftImg8bit").rename(root / "left")
    with pytest.raises(ValueError, match="there is no folder leftImg8bit/ beside gtFine/"):
        cityscapes.read(root)
