import shutil

import numpy as np
import pytest
from PIL import Image

from foveal.data.check_masks import check_segmentation


def test_sound_data(paint_pairs, tmp_path):
    paint_pairs("train/images", "train/masks", "abcd", [0, 0, 0, 1, 255])
    paint_pairs("val/images", "val/masks", "ef", [0, 1], seed=50)
    calls = []
    report = check_segmentation(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert report.problems == ()
    assert not report.damaged
    # Eight rows of ten pixels: 0 0 0 1 255 0 0 0 in each training mask.
    assert report.pixels == {"train": (240, 40, 40), "val": (80, 80, 0)}
    assert report.showing == {"train": (4, 4), "val": (2, 2)}
    assert report.pictures == {"train": 4, "val": 2, "test": 2}
    assert report.sizes == {(10, 8): 6}
    assert (report.modes, report.mask_modes) == ({"RGB": 6}, {"L": 6})
    assert calls == [(k, 6) for k in range(1, 7)]
    text = str(report)
    for line in (
        f"{tmp_path}: layout pairs, 2 classes",
        "  val           2 pictures  folders val/images/ and val/masks/",
        "share of labelled pixels, and pictures that show a class",
        "  0         85.714 %      4   50.000 %      2",
        "  1         14.286 %      4   50.000 %      2",
        "  ignored   12.500 %           0.000 %  (of all pixels)",
        "modes of masks: L 6",
    ):
        assert line in text.splitlines()
    assert text.endswith("no problems")


def test_everything_that_is_wrong(paint_pairs, paint, paint_mask, tmp_path):
    stems = [f"{k:02}" for k in range(12)]
    paint_pairs("train/images", "train/masks", stems)
    paint_pairs("val/images", "val/masks", "xy", seed=50)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    images, masks = tmp_path / "train" / "images", tmp_path / "train" / "masks"
    (images / "00.png").write_bytes(b"")
    (masks / "01.png").write_bytes(b"no picture")
    paint_mask("train/masks/02.png", [0, 4])
    paint("train/masks/03.png")  # colours
    paint_mask("train/masks/04.png", [0], size=(8, 10))
    (masks / "05.png").unlink()
    (images / "06.png").unlink()
    paint_mask("val/masks/x.png", [3])
    shutil.copy(images / "07.png", tmp_path / "val" / "images" / "y.png")
    (images / "list.txt").touch()
    report = check_segmentation(tmp_path)
    assert report.damaged
    assert report.damaged_files == (
        f"{images}/00.png: the file is empty",
        f"{masks}/01.png: not a picture (of JPEG, PNG, GIF, BMP, TIFF, WEBP, PPM)",
    )
    assert report.wrong_labels == (
        f"{masks}/02.png: has the value 4 in 40 pixels, where 0 to 3 and 255 are expected",
        f"{masks}/03.png: has colours (mode RGB), where a mask has one channel of class numbers, "
        "grey or with a palette",
    )
    assert len(report.sizes_differ) == 1
    assert report.sizes_differ[0].startswith(f"{images}/04.png: 10 by 8 pixels, but its mask")
    assert report.problems == (
        f"{images}/05.png: there is no mask 05 in {masks}",
        f"{masks}/06.png: there is no picture 06 in {images}",
        "pictures or masks that will not open: 2",
        "pictures whose masks are of another size: 1",
        "masks with wrong labels: 2",
        f"pictures found in more than one split: 1, such as {images}/07.png (train) = "
        f"{tmp_path}/val/images/y.png (val)",
    )
    assert report.notes == ("classes that val shows, but no training picture: d",)
    assert report.ignored == (f"{images}/list.txt",)
    assert sum(report.pixels["train"]) == 5 * 80  # 07 to 11
    text = str(report)
    assert f"wrong labels: 2\n  {masks}/02.png: has the value 4" in text
    assert f"sizes that differ: 1\n  {images}/04.png" in text
    assert f"damaged: 2\n  {images}/00.png" in text


def test_too_few_to_divide_is_listed_not_raised(paint_pairs, tmp_path):
    paint_pairs("images", "masks", "a")
    report = check_segmentation(tmp_path)
    assert len(report.problems) == 1
    assert "too few pictures for the splits" in report.problems[0]
    assert report.pictures == {"all": 1}


def test_nothing_but_partners_missing(paint, tmp_path):
    paint("train/a.png")
    (tmp_path / "trainannot").mkdir()
    report = check_segmentation(tmp_path)
    assert report.problems == (
        f"{tmp_path}/train/a.png: there is no mask a in {tmp_path}/trainannot",
    )
    assert "layout camvid, 11 classes" in str(report)


def test_real_camvid(pack):
    root = pack("CamVid")
    report = check_segmentation(root)
    assert report.problems == ()
    for split in ("train", "val", "test"):
        counts, showing = np.zeros(12, int), np.zeros(12, int)
        for path in (root / "CamVid" / f"{split}annot").iterdir():
            with Image.open(path) as mask:
                found = np.bincount(np.asarray(mask).ravel(), minlength=12)
            counts += found
            showing += found > 0
        assert report.pixels[split] == tuple(counts)
        assert report.showing[split] == tuple(showing[:11])


def test_real_mini_voc(pack):
    report = check_segmentation(pack("mini-voc"), labels="original")
    assert report.problems == ()
    assert report.notes == (
        "classes that no picture shows: aeroplane, horse, sofa",
        "classes that val shows, but no training picture: bus, sheep",
    )
    # 206387 of 7003107 pixels, in the pack's own description
    assert report.pixels["train"][-1] == 206387
    assert report.mask_modes == {"P": 56}


@pytest.mark.parametrize("labels", ["coarse", "fine"])
def test_scenes(labels, few_scenes):
    report = check_segmentation(None, "scenes", labels=labels)
    assert report.root is None
    assert report.pictures == {"train": 6, "val": 4, "test": 4}
    assert all(counts[-1] == 0 for counts in report.pixels.values())
    assert str(report).startswith("built-in pictures: layout scenes, ")
