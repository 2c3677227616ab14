import pytest

from foveal.data import context, read_segmentation
from foveal.data.layouts import detect


@pytest.fixture
def root(paint, paint_mask, tmp_path):
    for k in range(4):
        paint(f"VOC2010/JPEGImages/2008_{k}.jpg", k)
        paint_mask(f"VOC2010/SegmentationClassContext/2008_{k}.png", [0, 1, 59])
        paint_mask(f"VOC2010/SegmentationClass/2008_{k}.png", [0, 20], "P")
    lists = tmp_path / "VOC2010" / "ImageSets" / "SegmentationContext"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2008_0\n2008_1\n")
    (lists / "val.txt").write_text("2008_2\n2008_3\n")
    return tmp_path / "VOC2010"


def test_59_classes_ignore_the_background(root, tmp_path):
    assert detect(tmp_path) == detect(root) == "context"
    data = read_segmentation(tmp_path)
    assert (len(data.classes), data.classes[0], data.classes[58]) == (59, "aeroplane", "wood")
    assert data.colors.shape == (59, 3)
    assert data.splits["train"].load(0)[1][:3, 0].tolist() == [255, 0, 58]
    assert data.notes == ("59 classes, without background",)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 2, "val": 2, "test": 2}


def test_60_classes_have_the_background(root):
    data = read_segmentation(root, labels="60")
    assert (len(data.classes), data.classes[0], data.classes[59]) == (60, "background", "wood")
    assert data.splits["train"].load(0)[1][:3, 0].tolist() == [0, 1, 59]
    assert data.notes == ("60 classes, with background",)


def test_what_is_wrong(root, paint_mask):
    paint_mask("VOC2010/SegmentationClassContext/2008_0.png", [60])
    found = context.read(root)
    with pytest.raises(ValueError, match=r"2008_0\.png: has the value 60 in 80 pixels, where 0 to"):
        found.parts["train"].load(0)
    (root / "SegmentationClassContext" / "2008_3.png").unlink()
    assert context.read(root).problems == (
        f"{root}/ImageSets/SegmentationContext/val.txt: there is no mask "
        f"{root}/SegmentationClassContext/2008_3.png",
    )
    (root / "ImageSets" / "SegmentationContext" / "train.txt").write_text("2008_2\n")
    with pytest.raises(ValueError, match=r"val\.txt: picture 2008_2 is in .*train\.txt too"):
        context.read(root)
