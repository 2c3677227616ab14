from pathlib import Path

import numpy as np
import pytest

from foveal.config import DENSE_TASKS
from foveal.data import pair_list, read_dense
from foveal.data.layouts import detect

PLACES = ["0.0_1_0", "90.0_1_0", "0.0_1_1"]


@pytest.fixture
def augmented(paint, paint_mask, tmp_path):
    """Store pictures in three versions each, as HED's authors do, and list them."""

    def make(name="HED-BSDS", prefix="", stems="abcdefgh", list_name="train_pair.lst"):
        lines = []
        for place in PLACES:
            for k, stem in enumerate(stems):
                picture = f"train/aug_data/{place}/{stem}.jpg"
                truth = f"train/aug_gt/{place}/{stem}.png"
                paint(f"{name}/{picture}", k)
                paint_mask(f"{name}/{truth}", [0, 51, 153, 255])
                lines.append(f"{prefix}{picture} {prefix}{truth}\n")
        (tmp_path / name / list_name).write_text("".join(lines))
        return tmp_path / name

    return make


def test_the_augmented_list_of_hed(augmented, paint, tmp_path):
    root = augmented()
    paint("HED-BSDS/test/100007.jpg")
    (root / "test.lst").write_text("test/100007.jpg\n")
    assert detect(root) == detect(tmp_path) == "pair_list"
    assert detect(root / "train_pair.lst") == "pair_list"
    for path in (root, root / "train_pair.lst"):
        data = read_dense(path, task="edge", val_fraction=0.25, test_fraction=0.25)
        assert data.layout == "pair_list"
        # A quarter of 8 pictures and then of the 6 others, in three versions each.
        assert {s: len(p) for s, p in data.splits.items()} == {"train": 12, "val": 6, "test": 6}
    assert data.origins["test"] == "25 % of list train_pair.lst, drawn with seed 0"
    stems = [{Path(p.name(k)).stem for k in range(len(p))} for p in data.splits.values()]
    assert not stems[0] & stems[1]
    assert not stems[0] & stems[2]
    assert not stems[1] & stems[2]
    train = data.splits["train"]
    assert all(
        train.name(k).replace("aug_data", "").removesuffix(".jpg")
        == train.map_name(k).replace("aug_gt", "").removesuffix(".png")
        for k in range(len(train))
    )
    _, values = train.load(0)
    np.testing.assert_allclose(values[:4, 0], [0, 0.2, 0.6, 1], atol=1e-7)
    assert [one[:4, 0].tolist() for one in train.annotations(0)] == [[False, False, True, True]]


@pytest.mark.parametrize("task", DENSE_TASKS)
def test_lists_serve_all_tasks_and_tell_splits_by_name(augmented, task):
    root = augmented("set", list_name="bsds_pascal_train_pair.lst", stems="ab")
    lines = (root / "bsds_pascal_train_pair.lst").read_text().splitlines(keepends=True)
    (root / "bsds_pascal_train_pair.lst").write_text("".join(lines[:4]))
    (root / "val.lst").write_text("".join(lines[4:]))
    data = read_dense(root, task=task)
    assert {s: len(p) for s, p in data.splits.items()} == {"train": 4, "val": 2, "test": 2}
    assert data.origins["val"] == "list val.lst"


@pytest.mark.parametrize("prefix", ["/home/authors/data/HED-BSDS/", "HED-BSDS/", "./"])
def test_paths_of_other_machines(augmented, prefix):
    root = augmented(prefix=prefix)
    found = pair_list.read(root, "edge")
    assert found.problems == ()
    assert len(found.parts["train"]) == 24
    found.parts["train"].load(23)


def test_paths_relative_to_the_folder_above_the_list(augmented):
    root = augmented("SK-LARGE")
    (root / "aug_data").mkdir()
    (root / "train_pair.lst").rename(root / "aug_data" / "train_pair.lst")
    found = pair_list.read(root / "aug_data", "edge")
    assert found.problems == ()
    found.parts["train"].load(0)


def test_missing_files_are_named(augmented):
    root = augmented(stems="ab")
    (root / "train" / "aug_gt" / PLACES[1] / "a.png").unlink()
    (root / "train" / "aug_data" / PLACES[2] / "b.jpg").unlink()
    assert pair_list.read(root, "edge").problems == (
        f"{root}/train_pair.lst: there is no edge map {root}/train/aug_gt/{PLACES[1]}/a.png",
        f"{root}/train_pair.lst: there is no picture {root}/train/aug_data/{PLACES[2]}/b.jpg",
    )


def test_lists_that_are_none(augmented, tmp_path):
    root = augmented(stems="ab")
    (root / "train_pair.lst").write_text("a.jpg a.png\nb.jpg b.png c.png\n")
    with pytest.raises(ValueError, match=r"the line 'b\.jpg b\.png c\.png' has 3 columns, where"):
        pair_list.read(root, "edge")
    (root / "train-b.lst").write_text("a.jpg a.png\n")
    (root / "train_pair.lst").write_text("a.jpg a.png\n")
    with pytest.raises(
        ValueError, match=r"which list is the train part, train-b\.lst or train_pai"
    ):
        pair_list.read(root, "edge")
    (root / "train-b.lst").rename(root / "more.lst")
    with pytest.raises(ValueError, match=r"more\.lst beside train_pair\.lst: its name must tell"):
        pair_list.read(root, "edge")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.lst").touch()
    assert not pair_list.detect(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"there is no list such as train_pair\.lst in it"):
        pair_list.read(tmp_path / "empty", "edge")


def test_a_list_without_the_name_of_a_split_is_divided(augmented):
    root = augmented(list_name="all.lst")
    data = read_dense(root / "all.lst", task="skeleton")
    assert sum(len(p) for p in data.splits.values()) == 24
    assert all(len(p) % 3 == 0 for p in data.splits.values())
