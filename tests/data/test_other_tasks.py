import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from foveal.data import other_tasks
from foveal.data.layouts import detect


@pytest.mark.parametrize(
    ("files", "layout"),
    [
        (["JPEGImages/a.jpg", "SegmentationClass/a.png", "Annotations/a.xml"], "voc"),
        (
            ["VOCdevkit/VOC2012/JPEGImages/a.jpg", "VOCdevkit/VOC2012/SegmentationClassAug/a.png"],
            "voc",
        ),
        (["JPEGImages/a.jpg", "Annotations/a.xml"], "voc_boxes"),
        (["train2017/a.jpg", "annotations/instances_train2017.json"], "coco"),
        (["train/a.png", "trainannot/a.png"], "camvid"),
        (["leftImg8bit/train/aachen/a.png", "gtFine/train/aachen/a.png"], "cityscapes"),
        (["images/training/ADE_train_1.jpg", "annotations/training/ADE_train_1.png"], "ade20k"),
        (["images/training/a.jpg", "annotations/training/a.png"], "pairs"),
        (["JPEGImages/a.jpg", "SegmentationClassContext/a.png"], "context"),
        (["images/train/a.jpg", "labels/train/a.txt"], "yolo"),
        (["DUTS-TR/DUTS-TR-Image/a.jpg", "DUTS-TR/DUTS-TR-Mask/a.png"], "saliency"),
        (["Images/a.jpg", "GT/a.png"], "pairs"),
        (["imgs/a.jpg", "masks/a.png"], "pairs"),
        (["train_images/a.jpg", "train-labels/a.png"], "pairs"),
        (["val/image/a.jpg", "val/ground_truth/a.png"], "pairs"),
        (["train/images/a.jpg", "train/labels/a.txt"], "yolo"),
        (["with_mask/a.jpg", "without_mask/a.jpg"], "imagefolder"),
    ],
)
def test_layouts_are_known_by_their_folders(paint, tmp_path, files, layout):
    for name in files:
        if name.endswith(("jpg", "png")):
            paint(f"data/{name}")
        else:
            (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name).write_text(json.dumps({}))
    assert detect(tmp_path / "data") == layout


@pytest.mark.parametrize(
    ("variable", "layout"), [("groundTruth", "bsds500"), ("symmetry", "sk_large")]
)
def test_truth_files_tell_edges_from_skeletons(paint, tmp_path, variable, layout):
    paint("images/train/a.jpg")
    (tmp_path / "groundTruth" / "train").mkdir(parents=True)
    savemat(tmp_path / "groundTruth" / "train" / "a.mat", {variable: np.zeros((2, 2))})
    assert detect(tmp_path) == layout


def save_mask(path, values, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.resize(np.array(values, dtype=np.uint8), (16, 16))
    image = Image.fromarray(pixels)
    if mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(range(256))
    image.save(path)


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("folder", [".", "a", "train/a"])
def test_masks_are_recognised_at_any_depth(tmp_path, mode, folder):
    for k in range(3):
        save_mask(tmp_path / "data" / folder / f"{k}.png", [0, k + 1, 255], mode)
    assert other_tasks.is_masks(tmp_path / "data")


def test_pictures_are_not_masks(paint, tmp_path):
    save_mask(tmp_path / "digits" / "0" / "a.png", range(64))  # grey, but many values
    assert not other_tasks.is_masks(tmp_path / "digits")
    paint("mixed/a/b.png")  # one picture among masks
    save_mask(tmp_path / "mixed" / "a" / "a.png", [0, 1])
    assert not other_tasks.is_masks(tmp_path / "mixed")
    (tmp_path / "empty").mkdir()
    assert not other_tasks.is_masks(tmp_path / "empty")


def test_grey_jpeg_of_two_values_is_not_a_mask(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (16, 16), 255).save(tmp_path / "a" / "a.jpg")
    assert not other_tasks.is_masks(tmp_path)


@pytest.mark.parametrize("inner", ["", "images/"])
def test_domains_are_folders_with_the_same_classes(paint, tmp_path, inner):
    for domain in ("Art", "Real World"):
        for name in ("Bed", "Bike", "Bus"):
            paint(f"{domain}/{inner}{name}/a.jpg")
    paint(f"Art/{inner}Cup/a.jpg")  # a class that the other domain lacks
    assert [folder.name for folder in other_tasks.domains(tmp_path)] == ["Art", "Real World"]


def test_splits_and_nested_class_folders_are_not_domains(paint, paint_classes, tmp_path):
    for split in ("train", "val"):
        paint_classes(f"split/{split}", {"a": 1, "b": 1})
    assert not other_tasks.domains(tmp_path / "split")
    for name in ("n01440764", "n01443537"):
        paint(f"tiny/{name}/images/a.jpg")
    assert not other_tasks.domains(tmp_path / "tiny")
    paint_classes("different/cats", {"lynx": 1, "lion": 1})
    paint_classes("different/dogs", {"wolf": 1, "fox": 1})
    assert not other_tasks.domains(tmp_path / "different")
