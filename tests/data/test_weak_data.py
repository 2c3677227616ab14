"""Pictures with image labels, the masks that some of them have, and pseudo labels on disk."""

import json

import numpy as np
import pytest
from PIL import Image

from foveal.data.pictures import is_turned
from foveal.data.segmentation import read_segmentation
from foveal.data.weak import WeakPictures, read_weak


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path, **options)


def picture(side=8, shade=100):
    return np.full((side, side + 2, 3), shade)


@pytest.fixture
def listed(tmp_path):
    """Write eight pictures of a cat, a dog, both or none, listed in a table."""
    rows = ["path,labels,split"]
    for index in range(8):
        split = ("train", "train", "val", "test")[index % 4]
        save(tmp_path / f"{index}.png", picture(shade=20 * index))
        labels = ("cat", "cat;dog", "dog", "", "dog", "cat", "cat", "dog")[index]
        rows.append(f"{index}.png,{labels},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def masked(tmp_path):
    """Write pictures with masks: 1 in the first three, 2 in the others."""
    for part, count in (("train", 3), ("val", 2), ("test", 2)):
        for index in range(count):
            save(tmp_path / part / "images" / f"{part}{index}.png", picture())
            labels = np.zeros((8, 10), np.uint8)
            labels[2:5, 2:6] = 1 + index % 2
            labels[0, 0] = 255
            save(tmp_path / part / "masks" / f"{part}{index}.png", labels)
    (tmp_path / "classes.txt").write_text("background\ncow\nbird\n")
    return tmp_path


def test_pictures_without_masks(listed):
    data = read_weak(listed / "labels.csv")
    assert data.layout == "csv"
    assert data.classes == ("background", "cat", "dog")
    assert data.held_out == {}
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [4, 2, 2]
    assert data.splits["train"].targets.tolist() == [[1, 0], [1, 1], [0, 1], [1, 0]]
    assert data.splits["train"].truth(0) is None
    assert data.parts == ("train", "val", "test")
    assert "no masks: what is scored by pseudo labels is called pseudo" in data.describe()


def test_class_folders_are_one_class_a_picture(tmp_path):
    for name in ("ant", "bee"):
        for index in range(4):
            save(tmp_path / name / f"{index}.png", picture())
    data = read_weak(tmp_path, val_fraction=0.3, test_fraction=0.3)
    assert data.classes == ("background", "ant", "bee")
    for split in data.splits.values():
        assert split.targets.sum(1).tolist() == [1] * len(split)


def test_masks_are_matched_to_pictures_and_numbered_by_their_class(masked):
    data = read_weak(masked)
    assert data.classes == ("background", "cow", "bird")
    assert data.colors[1].tolist() == [128, 0, 0]
    assert len(data.held_out["val"]) == len(data.held_out["test"]) == 2
    val = data.splits["val"]
    assert val.targets.tolist() == [[1, 0], [0, 1]]
    for index in range(2):
        truth = val.truth(index)
        assert truth[3, 3] == 1 + index
        assert truth[0, 0] == 255
        assert truth[7, 7] == 0
        assert np.array_equal(data.held_out["val"].labels(index), truth)
    assert "2 pictures" in data.describe()
    assert "2 of them with true masks" in data.describe()


def test_the_background_has_the_name_that_masks_give_it():
    data = read_weak(None)
    assert data.layout == "scenes"
    assert data.classes[0] == "ground"
    train = data.splits["train"]
    for index in (0, 17):
        shown = {int(k) for k in np.unique(train.truth(index))} - {0, 255}
        assert shown == {int(k) + 1 for k in np.flatnonzero(train.targets[index])}


def test_masks_of_other_classes_are_refused(masked, monkeypatch):
    from foveal.data import weak
    from foveal.data.classification import read_classification

    def without_cow(*args, **options):
        import dataclasses

        found = read_classification(*args, **options)
        return dataclasses.replace(found, classes=("pig", "bird"))

    monkeypatch.setattr(weak, "read_classification", without_cow)
    with pytest.raises(ValueError, match="masks show 'background', 'cow', and the image labels ar"):
        read_weak(masked)


def test_chosen_pictures_keep_their_masks(masked):
    chosen = read_weak(masked).splits["train"].choose(np.array([2, 1]))
    assert [chosen.truth(index)[3, 3] for index in range(2)] == [1, 2]
    assert chosen.name(0).endswith("train2.png")
    assert chosen.targets.tolist() == [[1, 0], [0, 1]]


def test_a_turned_picture_has_no_truth(masked):
    path = masked / "val" / "images" / "val0.jpg"
    (masked / "val" / "images" / "val0.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 3
    save(path, picture(), exif=exif)
    assert is_turned(path)
    assert not is_turned(masked / "val" / "images" / "val1.png")
    assert not is_turned("scenes[3]")
    assert read_weak(masked).splits["val"].truth(0) is None


def test_validation_serves_as_test_where_there_is_none(masked):
    import shutil

    shutil.rmtree(masked / "test")
    data = read_weak(masked)
    assert data.parts == ("train", "val")


def test_nothing_to_train_on_is_said(masked):
    import shutil

    shutil.rmtree(masked / "train")
    with pytest.raises(ValueError, match="there are no training pictures"):
        read_weak(masked)


def test_pseudo_labels_are_a_layout_that_says_which_masks_are_none(masked):
    settings = {"pseudo_labels": ["train", "val"], "notes": ["made by hand"]}
    (masked / "settings.json").write_text(json.dumps(settings))
    data = read_segmentation(masked)
    assert data.layout == "pseudo_labels"
    assert data.pseudo == ("train", "val")
    assert data.origins["train"] == "folders train/images/ and train/masks/, pseudo labels"
    assert "pseudo" not in data.origins["test"]
    assert data.notes == (
        "made by hand",
        "the masks of val are pseudo labels, not the truth: scores on them are called pseudo",
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"width": 3}'])
def test_other_settings_are_not_taken_for_those_of_pseudo_labels(masked, text):
    (masked / "settings.json").write_text(text)
    assert read_segmentation(masked).layout == "pairs"
    with pytest.raises(ValueError, match=r"settings\.json: does not tell which masks are pseudo"):
        read_segmentation(masked, "pseudo_labels")


def test_pseudo_validation_that_serves_as_test_makes_that_pseudo_too(masked):
    import shutil

    shutil.rmtree(masked / "test")
    (masked / "settings.json").write_text(json.dumps({"pseudo_labels": ["train", "val"]}))
    assert read_segmentation(masked).pseudo == ("train", "val", "test")


def test_pictures_are_a_collection_of_their_own(masked):
    pictures = read_weak(masked).splits["test"]
    assert isinstance(pictures, WeakPictures)
    assert pictures.load(0).size == (10, 8)
