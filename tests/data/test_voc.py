import numpy as np
import pytest
from PIL import Image

from foveal.data import read_segmentation, voc
from foveal.data.layouts import detect


@pytest.fixture
def write(paint, paint_mask, tmp_path):
    """Return a function that writes a miniature of nine pictures: lists by name, mask folders."""

    def save(lists, masks=("SegmentationClass",)):
        root = tmp_path / "VOCdevkit" / "VOC2012"
        for k in range(9):
            paint(f"VOCdevkit/VOC2012/JPEGImages/2007_{k}.jpg", k)
            for number, folder in enumerate(masks):
                values = [0, 15, 20] if number else [0, 15, 20, 255]  # SBD has no outlines
                paint_mask(f"VOCdevkit/VOC2012/{folder}/2007_{k}.png", values, "P")
        (root / "ImageSets" / "Segmentation").mkdir(parents=True)
        for name, lines in lists.items():
            path = root / "ImageSets" / "Segmentation" / f"{name}.txt"
            path.write_bytes(b"\r\n".join(line.encode() for line in lines))
        return root

    return save


def ids(*numbers):
    return [f"2007_{k}" for k in numbers]


def stems(part):
    return [part.name(k).split("/")[-1].removesuffix(".jpg") for k in range(len(part))]


def test_train_and_val(write, tmp_path):
    root = write({"train": ids(0, 2, 1), "val": ids(4, 5), "trainval": ids(0, 1, 2, 4, 5)})
    assert detect(tmp_path) == "voc"
    data = read_segmentation(tmp_path)  # two folders further down
    assert data.classes[0] == "background"
    assert (len(data.classes), data.classes[15], data.classes[20]) == (21, "person", "tvmonitor")
    assert stems(data.splits["train"]) == ids(0, 2, 1)
    assert stems(data.splits["val"]) == ids(4, 5)
    assert data.splits["test"] is data.splits["val"]
    assert data.origins["train"] == "list train.txt, masks of SegmentationClass/"
    image, labels = data.splits["val"].load(0)
    assert labels[:4, 0].tolist() == [0, 15, 20, 255]
    with Image.open(root / "JPEGImages" / "2007_4.jpg") as stored:
        assert (np.asarray(image) == np.asarray(stored)).all()


@pytest.mark.parametrize("folder", ["SegmentationClassAug", "SegmentationClass_aug"])
def test_augmented_list_with_its_masks_trains_unless_told_otherwise(write, folder):
    lists = {"train": ids(0), "trainaug": ids(0, 1, 2, 3), "val": ids(4, 5)}
    root = write(lists, ("SegmentationClass", folder))
    found = voc.read(root)
    assert stems(found.parts["train"]) == ids(0, 1, 2, 3)
    assert found.parts["train"].mask_name(0) == f"{root}/{folder}/2007_0.png"
    assert found.parts["val"].mask_name(0) == f"{root}/SegmentationClass/2007_4.png"
    assert found.origins["train"] == f"list trainaug.txt, masks of {folder}/"
    original = voc.read(root, "original")
    assert stems(original.parts["train"]) == ids(0)
    assert original.parts["train"].mask_name(0) == f"{root}/SegmentationClass/2007_0.png"
    data = read_segmentation(root, labels="augmented")
    assert len(data.splits["train"]) == 4
    with pytest.raises(ValueError, match=r"unknown labels 'augmentd': did you mean 'augmented'\?"):
        read_segmentation(root, labels="augmentd")


def test_augmented_lists_of_paths(write):
    lines = [f"/JPEGImages/2007_{k}.jpg /SegmentationClassAug/2007_{k}.png" for k in (1, 3)]
    root = write({"train_aug": lines, "val": ids(4)}, ("SegmentationClass", "SegmentationClassAug"))
    train = voc.read(root).parts["train"]
    assert stems(train) == ids(1, 3)
    assert train.mask_name(1) == f"{root}/SegmentationClassAug/2007_3.png"


def test_a_training_picture_that_is_for_validation_too_is_refused(write):
    root = write({"trainaug": ids(0, 4), "val": ids(4, 5)})
    with pytest.raises(ValueError, match=r"val\.txt: picture 2007_4 is in .*trainaug\.txt too"):
        voc.read(root)


def test_undivided_list_and_test_lists_with_and_without_masks(write):
    root = write({"trainval": ids(0, 1, 2), "test": ids(7, 8)})
    found = voc.read(root)
    assert stems(found.parts["train"]) == ids(0, 1, 2)
    assert stems(found.parts["test"]) == ids(7, 8)
    for k in (7, 8):
        (root / "SegmentationClass" / f"2007_{k}.png").unlink()
    found = voc.read(root)
    assert "test" not in found.parts
    assert found.notes == ("test.txt: none of its 2 pictures has a mask, not read",)
    assert found.problems == ()


def test_what_is_missing_is_named(write):
    root = write({"train": ids(0, 1, 2), "val": ids(4, 77)})
    (root / "SegmentationClass" / "2007_1.png").unlink()
    lists = root / "ImageSets" / "Segmentation"
    assert voc.read(root).problems == (
        f"{lists}/train.txt: there is no mask {root}/SegmentationClass/2007_1.png",
        f"{lists}/val.txt: there is no picture {root}/JPEGImages/2007_77.jpg",
    )
    with pytest.raises(ValueError, match=r"trainaug\.txt: there is no such file"):
        voc.read(root, "augmented")
    for name in ("train", "val"):
        (lists / f"{name}.txt").unlink()
    with pytest.raises(ValueError, match=r"Segmentation: there is no train\.txt or val\.txt"):
        voc.read(root)


@pytest.mark.parametrize("labels", ["original", "augmented"])
def test_real_pack(pack, labels):
    root = pack("mini-voc")
    data = read_segmentation(root, labels=labels)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 40, "val": 16, "test": 16}
    folder = "SegmentationClass" if labels == "original" else "SegmentationClassAug"
    counts, expected = np.zeros(256, int), np.zeros(256, int)
    train = data.splits["train"]
    lines = (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").read_text().split()
    for k, name in enumerate(lines):
        counts += np.bincount(train.load(k)[1].ravel(), minlength=256)
        with Image.open(root / "VOCdevkit/VOC2012" / folder / f"{name}.png") as mask:
            expected += np.bincount(np.asarray(mask).ravel(), minlength=256)
    assert counts.tolist() == expected.tolist()
    if labels == "original":  # of the pack's own description
        assert (counts[0], counts[15], counts[255]) == (5354267, 812563, 206387)
