import pytest

from foveal.data import ade20k, read_segmentation
from foveal.data.layouts import detect


@pytest.fixture
def root(paint, paint_mask, tmp_path):
    folder = "ADEChallengeData2016"
    for split, part, count in (("train", "training", 3), ("val", "validation", 2)):
        for k in range(count):
            paint(f"{folder}/images/{part}/ADE_{split}_{k:08}.jpg", k)
            paint_mask(f"{folder}/annotations/{part}/ADE_{split}_{k:08}.png", [0, 1, 150])
    (tmp_path / folder / "sceneCategories.txt").touch()
    return tmp_path / folder


def table(names):
    return "Idx\tRatio\tTrain\tVal\tName\t\n" + "".join(
        f"{k + 1}\t0.1\t11664\t1172\t{name}\t\n" for k, name in enumerate(names)
    )


def test_zero_is_ignored_and_the_rest_moves_down(root, tmp_path):
    assert detect(tmp_path) == detect(root) == "ade20k"
    data = read_segmentation(tmp_path)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 3, "val": 2, "test": 2}
    assert data.splits["train"].load(0)[1][:3, 0].tolist() == [255, 0, 149]
    assert (len(data.classes), data.classes[0], data.classes[149]) == (150, "1", "150")
    assert data.notes == ("classes are called by their numbers: there is no objectInfo150.txt",)
    assert data.origins["train"] == "folder training/"


def test_names_are_the_first_synonyms_that_differ(root):
    names = [f"thing {k}, object {k}" for k in range(150)]
    names[1] = "building, edifice"
    names[130] = "screen, silver screen"
    names[141] = "screen, CRT screen"
    (root / "objectInfo150.txt").write_text(table(names))
    found = ade20k.read(root)
    assert found.classes[:2] == ("thing 0", "building")
    assert (found.classes[130], found.classes[141]) == (names[130], names[141])
    assert found.notes == ()
    (root / "objectInfo150.txt").write_text(table(names[:149]))
    with pytest.raises(ValueError, match=r"objectInfo150\.txt: must have a line for each class"):
        ade20k.read(root)


def test_other_sets_with_such_folders_are_not_taken_for_it(paint_pairs, tmp_path):
    paint_pairs("images/training", "annotations/training", "abcd")
    assert detect(tmp_path) == "pairs"
    assert read_segmentation(tmp_path).splits["train"].load(0)[1].min() == 0


def test_what_is_wrong(root, paint_mask):
    (root / "annotations" / "validation" / "ADE_val_00000001.png").unlink()
    paint_mask("ADEChallengeData2016/annotations/training/ADE_train_00000000.png", [151])
    found = ade20k.read(root)
    assert found.problems == (
        f"{root}/images/validation/ADE_val_00000001.jpg: there is no mask ADE_val_00000001 in "
        f"{root}/annotations/validation",
    )
    with pytest.raises(ValueError, match=r"ADE_train_00000000\.png: has the value 151 .* 0 to 150"):
        found.parts["train"].load(0)
