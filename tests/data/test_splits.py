from pathlib import Path

import numpy as np
import pytest

from foveal.data.maps import FoundMaps, MapFiles
from foveal.data.masks import FoundMasks, MaskFiles, label_table
from foveal.data.parts import Found, PictureArray
from foveal.data.splits import (
    class_counts,
    class_problems,
    make_map_splits,
    make_mask_splits,
    make_splits,
    require_classes,
    split_called,
)


def found(multi_label: bool = False, **targets) -> Found:
    parts, start = {}, 0
    for name, values in targets.items():
        pixels = np.arange(start, start + len(values), dtype=np.uint8).reshape(-1, 1, 1)
        start += len(values)
        parts[name] = PictureArray(pixels, np.asarray(values), [(name, len(values))])
    return Found(
        root="data",
        classes=("a", "b", "c"),
        parts=parts,
        origins={name: f"folder {name}/" for name in parts},
        multi_label=multi_label,
    )


def names(pictures) -> list[str]:
    return [pictures.name(k) for k in range(len(pictures))]


def test_one_part_is_divided_into_three_disjoint_stratified_ones():
    targets = [0] * 40 + [1] * 20 + [2] * 10
    splits, origins = make_splits(found(all=targets), 0.25, 0.1, seed=0)
    counts = {s: class_counts(p.targets, 3).tolist() for s, p in splits.items()}
    # test: 10 % of (40, 20, 10); val: 25 % of the remaining (36, 18, 9), halves rounded up
    assert counts == {"train": [27, 13, 7], "val": [9, 5, 2], "test": [4, 2, 1]}
    together = [name for pictures in splits.values() for name in names(pictures)]
    assert sorted(together) == sorted(f"all[{k}]" for k in range(70))
    assert origins["test"] == "10 % of folder all/, drawn with seed 0"
    assert origins["val"] == "25 % of the rest of folder all/, drawn with seed 0"
    assert origins["train"] == "the rest of folder all/"


def test_the_draw_is_pinned():
    splits, _ = make_splits(found(all=[0, 1] * 10), 0.2, 0.2, seed=7)
    # PCG64(7) gives 20 64-bit numbers, whose upper 53 bits are ten fractions for class 0, ten for
    # class 1; each class's two smallest, found by sorting the raw numbers, are these.
    assert sorted(names(splits["test"])) == ["all[12]", "all[3]", "all[5]", "all[6]"]


def test_the_same_seed_draws_the_same_and_another_seed_others():
    draws = [names(make_splits(found(all=[0, 1] * 50), 0.1, 0.1, s)[0]["val"]) for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_given_parts_are_kept():
    splits, origins = make_splits(found(train=[0, 1], val=[1, 0], test=[0, 1]), 0.1, 0.1, 0)
    assert {s: names(p) for s, p in splits.items()} == {
        "train": ["train[0]", "train[1]"],
        "val": ["val[0]", "val[1]"],
        "test": ["test[0]", "test[1]"],
    }
    assert origins == {s: f"folder {s}/" for s in ("train", "val", "test")}


def test_without_a_test_part_it_is_validation_over_again():
    splits, origins = make_splits(found(train=[0, 1], val=[1, 0]), 0.1, 0.1, 0)
    assert splits["test"] is splits["val"]
    assert origins["test"] == "same pictures as val (the layout has no test part)"


def test_without_a_validation_part_it_is_drawn_from_training():
    splits, origins = make_splits(found(train=[0, 1] * 10, test=[0, 1]), 0.1, 0.5, 3)
    assert {s: len(p) for s, p in splits.items()} == {"train": 18, "val": 2, "test": 2}
    assert origins["val"] == "10 % of folder train/, drawn with seed 3"


def test_a_training_part_alone_gives_all_three():
    splits, _ = make_splits(found(train=[0, 1] * 10), 0.1, 0.1, 0)
    assert {s: len(p) for s, p in splits.items()} == {"train": 16, "val": 2, "test": 2}


@pytest.mark.parametrize("part", ["val", "test"])
def test_evaluation_alone_has_an_empty_training_part(part):
    splits, origins = make_splits(found(**{part: [0, 1]}), 0.1, 0.1, 0)
    assert {s: len(p) for s, p in splits.items()} == {"train": 0, "val": 2, "test": 2}
    assert origins["train"] == f"none: the layout has only folder {part}/"


def test_a_class_too_small_to_divide_is_named():
    with pytest.raises(ValueError, match="data: class 'b' has too few pictures"):
        make_splits(found(all=[0] * 10 + [1] * 2), 0.1, 0.1, 0)
    splits, _ = make_splits(found(all=[0] * 10 + [1] * 3), 0.1, 0.1, 0)
    assert [class_counts(p.targets, 2)[1] for p in splits.values()] == [1, 1, 1]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="val_fraction must lie between 0 and 1"):
        make_splits(found(all=[0, 1] * 10), fraction, 0.1, 0)


def test_rare_labels_reach_every_split():
    targets = np.zeros((40, 3), dtype=np.float32)
    targets[:, 0] = 1
    targets[:4, 1] = 1  # rare, and always together with the first
    targets[30:, :] = 0  # no label at all
    splits, _ = make_splits(found(multi_label=True, all=targets), 0.3, 0.25, 0)
    assert all(class_counts(p.targets, 3)[1] >= 1 for p in splits.values())
    assert sum(len(p) for p in splits.values()) == 40


def test_a_class_that_a_split_lacks_is_named():
    data = found(train=[0, 1, 2], val=[0, 0, 1], test=[0, 1, 2])
    splits, _ = make_splits(data, 0.1, 0.1, 0)
    assert class_problems(data, splits) == ["data: val has no pictures of 'c'"]
    data = found(train=[0, 1], val=[0, 1], test=[0, 1, 2])
    splits, _ = make_splits(data, 0.1, 0.1, 0)
    assert class_problems(data, splits) == ["data: test has pictures, but train none, of 'c'"]


def test_one_class_only_is_named_unless_labels_are_independent():
    with pytest.raises(ValueError, match="data: there is only the class 'b', where"):
        require_classes(found(train=[1, 1], val=[1]))
    require_classes(found(train=[1, 1], val=[0]))
    require_classes(found(multi_label=True, train=np.ones((4, 1), dtype=np.float32)))


def test_split_names():
    assert [split_called(w) for w in ("TRAINING", "valid", " test ", "photo")] == [
        "train",
        "val",
        "test",
        None,
    ]


def found_masks(**sizes) -> FoundMasks:
    parts = {}
    for name, size in sizes.items():
        pairs = [(f"{name}/{k:02}.jpg", f"{name}/{k:02}.png") for k in range(size)]
        parts[name] = MaskFiles(Path("data"), pairs, label_table(range(3)))
    return FoundMasks(
        root="data",
        classes=("a", "b", "c"),
        colors=np.zeros((3, 3), np.uint8),
        parts=parts,
        origins={name: f"folder {name}/" for name in parts},
    )


def test_pictures_with_masks_are_divided_without_looking_at_them():
    found = found_masks(all=70)
    splits, origins = make_mask_splits(found, 0.25, 0.1, seed=0)
    # test: 10 % of 70, val: 25 % of the remaining 63, halves rounded up
    assert {s: len(p) for s, p in splits.items()} == {"train": 47, "val": 16, "test": 7}
    together = [name for pictures in splits.values() for name in names(pictures)]
    assert sorted(together) == [f"data/all/{k:02}.jpg" for k in range(70)]
    for pictures in splits.values():
        for k in range(len(pictures)):
            assert pictures.mask_name(k) == pictures.name(k).replace("jpg", "png")
    assert origins["val"] == "25 % of the rest of folder all/, drawn with seed 0"
    other, _ = make_mask_splits(found, 0.25, 0.1, seed=1)
    assert names(other["test"]) != names(splits["test"])


def test_own_parts_of_pictures_with_masks_are_kept():
    found = found_masks(train=10, val=3)
    splits, origins = make_mask_splits(found, 0.1, 0.1, seed=0)
    assert splits["train"] is found.parts["train"]
    assert splits["test"] is splits["val"] is found.parts["val"]
    assert origins["test"] == "same pictures as val (the layout has no test part)"
    splits, origins = make_mask_splits(found_masks(test=3), 0.1, 0.1, seed=0)
    assert len(splits["train"]) == 0
    assert origins["train"] == "none: the layout has only folder test/"


def test_too_few_pictures_with_masks():
    with pytest.raises(ValueError, match=r"^data: there are too few pictures for the splits"):
        make_mask_splits(found_masks(all=2), 0.1, 0.1, seed=0)
    splits, _ = make_mask_splits(found_masks(all=3), 0.1, 0.1, seed=0)
    assert {s: len(p) for s, p in splits.items()} == {"train": 1, "val": 1, "test": 1}


def found_maps(stems, folders, **options) -> FoundMaps:
    pairs = [(f"{folder}/{k:02}.jpg", f"{folder}/{k:02}.png") for folder in folders for k in stems]
    part = MapFiles(Path("data"), pairs)
    return FoundMaps(root="data", parts={"all": part}, origins={"all": "list"}, **options)


def test_pictures_with_maps_are_drawn_as_those_with_masks():
    splits, _ = make_map_splits(found_maps(range(70), ["all"]), 0.25, 0.1, seed=4)
    masked, _ = make_mask_splits(found_masks(all=70), 0.25, 0.1, seed=4)
    for split in ("train", "val", "test"):
        assert names(splits[split]) == names(masked[split])


def test_changed_copies_of_a_picture_stay_together():
    folders = ["0", "90", "180", "270"]
    splits, _ = make_map_splits(found_maps(range(20), folders, copies=True), 0.2, 0.1, seed=0)
    assert {s: len(p) for s, p in splits.items()} == {"train": 56, "val": 16, "test": 8}
    stems = [{Path(name).stem for name in names(p)} for p in splits.values()]
    assert [len(found) for found in stems] == [14, 4, 2]
    # Pictures that are no copies of each other are drawn one by one.
    apart, _ = make_map_splits(found_maps(range(20), folders), 0.2, 0.1, seed=0)
    assert len({Path(name).stem for name in names(apart["val"])}) > 4
    with pytest.raises(ValueError, match=r"^data: there are too few pictures for the splits"):
        make_map_splits(found_maps([1], folders, copies=True), 0.2, 0.1, seed=0)
