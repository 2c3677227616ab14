"""Which classes pictures show, of data that were made for other tasks."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveal.data.check import check_classification
from foveal.data.classification import read_classification

ROOT = os.environ.get("FOVEAL_DATA_ROOT")
needs_data = pytest.mark.skipif(not ROOT, reason="FOVEAL_DATA_ROOT is not set")


def shown(data, split):
    """Return picture → names of its classes."""
    pictures = data.splits[split]
    return {
        Path(pictures.name(i)).stem: {data.classes[k] for k in np.flatnonzero(pictures.targets[i])}
        for i in range(len(pictures))
    }


def write_voc(root, *, annotations=None, lists=None, main=None, masks=None):
    """Write data in VOC's layout: picture → objects, list → pictures, file → lines."""
    for k, name in enumerate("abcdef"):
        path = root / "JPEGImages" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (40 * k, 0, 0)).save(path)
    for name, objects in (annotations or {}).items():
        path = root / "Annotations" / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        parts = "".join(
            f"<object><name>{thing.strip('?')}</name><part><name>head</name></part>"
            f"<difficult>{int('?' in thing)}</difficult></object>"
            for thing in objects
        )
        path.write_text(f"<annotation>{parts}</annotation>")
    for folder, files in (("Segmentation", lists or {}), ("Main", main or {})):
        for name, lines in files.items():
            path = root / "ImageSets" / folder / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
    for name, pixels in (masks or {}).items():
        path = root / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.resize(np.array(pixels, np.uint8), (8, 12))).save(path)
    return root


OBJECTS = {"a": ["cat", "dog", "cat"], "b": ["cat"], "c": [], "d": ["dog?"], "e": ["cat", "bird"]}
TRUTH = {
    "train": {"a": {"cat", "dog"}, "b": {"cat"}, "c": set()},
    "val": {"d": {"dog"}, "e": {"cat", "bird"}},
}
PARTS = {"train": "abc", "val": "de"}


def test_annotations_tell_the_classes_difficult_objects_too(tmp_path):
    data = read_classification(
        write_voc(tmp_path, annotations=OBJECTS, main=PARTS), multi_label=True
    )
    assert (data.layout, len(data.classes)) == ("voc_boxes", 20)
    assert "background" not in data.classes
    assert {split: shown(data, split) for split in TRUTH} == TRUTH
    assert data.splits["train"].targets.dtype == np.float32
    assert data.origins["train"] == "list train.txt, classes of Annotations/"
    assert any("val has pictures, but train none, of 'bird'" in note for note in data.notes)


def test_lists_of_classes_say_the_same(tmp_path):
    """A 0 is a picture with difficult objects alone; the file of one part may be all there is."""
    lists = {
        "cat_train": ["a  1", "b 1", "c -1"],
        "dog_train": ["a  1", "b -1", "c -1"],
        "cat_val": ["d -1", "e  1"],
        "dog_val": ["d  0", "e -1"],
        "bird_trainval": ["a -1", "b -1", "c -1", "d -1", "e  1"],
    }
    data = read_classification(
        write_voc(tmp_path, main=PARTS | lists, lists=PARTS, masks={"f": 0}), multi_label=True
    )
    assert data.layout == "voc"
    assert {split: shown(data, split) for split in TRUTH} == TRUTH
    assert data.origins["val"] == "list val.txt, classes of ImageSets/Main/"


def test_masks_alone_tell_the_classes_of_what_is_not_ignored(tmp_path):
    masks = {"a": [0, 8, 12], "b": [8, 255], "c": [255, 0], "d": [12], "e": [8, 3, 3]}
    write_voc(tmp_path, lists=PARTS, masks=masks)
    data = read_classification(tmp_path, multi_label=True)
    assert {split: shown(data, split) for split in TRUTH} == TRUTH
    image = data.splits["train"].load(0)
    assert (image.size, image.mode) == ((12, 8), "RGB")
    report = check_classification(tmp_path, multi_label=True)
    assert not report.problems
    assert report.counts["train"][data.classes.index("cat")] == 2
    Image.new("L", (3, 3)).save(tmp_path / "SegmentationClass" / "b.png")
    with pytest.raises(ValueError, match=r"b\.jpg: .*its mask .*b\.png has 3 by 3"):
        read_classification(tmp_path, multi_label=True)


def test_the_segmentation_tasks_pictures_are_taken_where_it_has_lists(tmp_path):
    lists = {"train": "ab", "trainaug": "abc", "val": "de"}
    write_voc(tmp_path, annotations=OBJECTS | {"f": ["cow"]}, lists=lists, main={"train": "f"})
    assert shown(read_classification(tmp_path, "voc", multi_label=True), "train").keys() == {*"abc"}
    original = read_classification(tmp_path, "voc", multi_label=True, labels="original")
    assert shown(original, "train").keys() == {*"ab"}


def test_a_set_of_other_classes_without_lists(tmp_path):
    things = {name: ["cell", "platelet"][: 1 + k % 2] for k, name in enumerate("abcdef")}
    data = read_classification(write_voc(tmp_path, annotations=things), multi_label=True)
    assert data.classes == ("cell", "platelet")
    assert sum(len(pictures) for pictures in data.splits.values()) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": {"a": ["cat"]}, "main": {"train": "ab"}}, r"b\.xml: there is no such f"),
        ({"annotations": {"a": ["cat"], "x": []}, "main": {"train": "ax"}}, "is no picture x in"),
        ({"annotations": {"a": [""]}, "main": {"train": "a"}}, "an object in it has no name"),
        (
            {"main": {"train": "ab", "cat_train": ["a 1"]}, "lists": {"train": "ab"}},
            "no list of a class names the picture b",
        ),
        (
            {"main": {"train": "a", "cat_train": ["a yes"]}, "lists": {"train": "a"}},
            r"cat_train\.txt: the line 'a yes' must be a picture and -1, 0 or 1",
        ),
        (
            {"annotations": OBJECTS, "main": {"train": "ab", "val": "bc"}},
            r"val\.txt: picture b is in .*train\.txt too",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, message):
    write_voc(tmp_path, **changes)
    layout = "voc_boxes" if "annotations" in changes else "voc"
    with pytest.raises(ValueError, match=message):
        read_classification(tmp_path, layout, multi_label=True)


def test_broken_annotations_are_named(tmp_path):
    write_voc(tmp_path, annotations=OBJECTS, main=PARTS)
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation><object>")
    with pytest.raises(ValueError, match=r"b\.xml: is no XML"):
        read_classification(tmp_path, multi_label=True)


def test_class_folders_give_one_class_each(paint_classes, tmp_path):
    paint_classes("folders", {"a": 4, "b": 6, "c": 5})
    one, several = (
        read_classification(tmp_path / "folders", multi_label=multi) for multi in (False, True)
    )
    assert several.multi_label
    for pictures in several.splits.values():
        assert pictures.targets.sum(1).tolist() == [1] * len(pictures)
        names = [pictures.name(i) for i in range(len(pictures))]
        assert pictures.targets.argmax(1).tolist() == [
            several.classes.index(Path(name).parent.name) for name in names
        ]
    assert several.classes == one.classes


def test_without_several_labels_the_task_is_still_asked_for(tmp_path):
    write_voc(tmp_path, annotations=OBJECTS, main=PARTS)
    with pytest.raises(ValueError, match="VOC layout: did you mean `foveal train detect`"):
        read_classification(tmp_path)


@needs_data
def test_all_three_sources_of_real_data_agree(tmp_path):
    """Its masks were drawn from the same objects, though a mask may lose one wholly hidden."""
    root = Path(ROOT, "mini-voc/VOCdevkit/VOC2012")
    found = {}
    for source, folders in {
        "boxes": ("Annotations",),
        "lists": ("ImageSets/Main",),
        "masks": (),
    }.items():
        for name in (*folders, "JPEGImages", "SegmentationClass", "SegmentationClassAug"):
            (tmp_path / source / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / source / name).symlink_to(root / name)
        (tmp_path / source / "ImageSets").mkdir(exist_ok=True)
        (tmp_path / source / "ImageSets/Segmentation").symlink_to(root / "ImageSets/Segmentation")
        found[source] = read_classification(tmp_path / source, multi_label=True)
    for split, count in (("train", 40), ("val", 16)):
        boxes, lists, masks = (shown(found[source], split) for source in found)
        assert len(boxes) == count
        assert boxes == lists
        assert boxes.keys() == masks.keys()
        assert all(masks[name] <= boxes[name] for name in masks)
        assert sum(masks[name] == boxes[name] for name in masks) >= 0.9 * count


@needs_data
def test_other_segmentation_layouts_of_real_data():
    data = read_classification(Path(ROOT, "CamVid"), multi_label=True)
    assert (data.layout, len(data.classes)) == ("camvid", 11)
    name = Path(data.splits["test"].name(3)).name
    with Image.open(Path(ROOT, "CamVid/CamVid/testannot", name)) as mask:
        there = {data.classes[k] for k in np.unique(np.array(mask)) if k < 11}
    assert shown(data, "test")[Path(name).stem] == there
