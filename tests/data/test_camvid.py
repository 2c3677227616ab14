import numpy as np
import pytest
from PIL import Image

from foveal.data import camvid, read_segmentation

NAMES = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"


@pytest.fixture
def write(paint, paint_mask):
    def save(stems=("0001TP_1", "0001TP_2", "0001TP_3")):
        for split in ("train", "val", "test"):
            for k, stem in enumerate(stems):
                paint(f"{split}/{stem}_{split}.png", k)
                paint_mask(f"{split}annot/{stem}_{split}.png", [0, 10, 11])

    return save


def test_folders_without_lists(write, tmp_path):
    write()
    assert camvid.detect(tmp_path)
    found = camvid.read(tmp_path)
    assert " ".join(found.classes) == NAMES
    assert found.colors.shape == (11, 3)
    assert found.origins["val"] == "folders val/ and valannot/"
    assert {split: len(part) for split, part in found.parts.items()} == {
        "train": 3,
        "val": 3,
        "test": 3,
    }
    _, labels = found.parts["train"].load(1)
    assert labels[:3, 0].tolist() == [0, 10, 255]


def test_lists_of_the_authors_machine_give_order_and_choice(write, tmp_path):
    write()
    (tmp_path / "train.txt").write_bytes(
        b"/SegNet/CamVid/train/0001TP_3_train.png /SegNet/CamVid/trainannot/0001TP_3_train.png\r\n"
        b"/SegNet/CamVid/train/0001TP_1_train.png /SegNet/CamVid/trainannot/0001TP_1_train.png"
    )
    found = camvid.read(tmp_path)
    train = found.parts["train"]
    assert [train.name(k) for k in range(len(train))] == [
        f"{tmp_path}/train/0001TP_{k}_train.png" for k in (3, 1)
    ]
    assert train.mask_name(0) == f"{tmp_path}/trainannot/0001TP_3_train.png"
    assert found.origins["train"] == "list train.txt"
    assert found.ignored == (f"{tmp_path}/train/0001TP_2_train.png",)
    assert found.problems == ()


def test_what_is_wrong(write, paint_mask, tmp_path):
    write()
    (tmp_path / "train.txt").write_text("a/train/x.png a/trainannot/x.png\n")
    (tmp_path / "testannot" / "0001TP_2_test.png").unlink()
    paint_mask("valannot/0001TP_1_val.png", [12])
    found = camvid.read(tmp_path)
    assert found.problems == (
        f"{tmp_path}/train.txt: there is no picture {tmp_path}/train/x.png",
        f"{tmp_path}/test/0001TP_2_test.png: there is no mask 0001TP_2_test in "
        f"{tmp_path}/testannot",
    )
    with pytest.raises(ValueError, match=r"0001TP_1_val\.png: has the value 12 .* 0 to 11 and 255"):
        found.parts["val"].load(0)


def test_real_pack(pack):
    data = read_segmentation(pack("CamVid"))
    assert data.layout == "camvid"
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 184, "val": 51, "test": 117}
    val = data.splits["val"]
    counts = np.zeros(256, int)
    for k in range(len(val)):
        image, labels = val.load(k)
        assert image.size == (240, 180)
        counts += np.bincount(labels.ravel(), minlength=256)
    # The histogram in the pack's own description; 39023 pixels of value 11.
    expected = [200763, 568237, 12281, 640197, 193420, 360200, 19358, 68277, 38667, 14143, 48634]
    assert counts[:11].tolist() == expected
    assert counts[11:].nonzero()[0].tolist() == [244]
    assert counts[255] == 39023
    with Image.open(val.mask_name(7)) as mask:
        stored = np.array(mask)
    assert (np.where(stored == 11, 255, stored) == val.load(7)[1]).all()
