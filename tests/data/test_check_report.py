from dataclasses import dataclass

import pytest
from PIL import Image

from foveal.data.check_report import (
    CheckReport,
    Seen,
    distinct_splits,
    each_picture,
    found_in_several,
    splits_or_parts,
)


class Names(list):
    """Pictures of which there are but names."""

    def name(self, index):
        return self[index]


@dataclass
class Found:
    parts: dict
    origins: dict
    problems: tuple = ("one problem",)


class Report(CheckReport):
    def _contents(self):
        return "two birds"

    def _table(self):
        return ["birds: 2"]


def report(**given):
    empty = {"damaged_files": (), "duplicates": (), "ignored": (), "problems": (), "notes": ()}
    counts = {"origins": {"train": "folder train/"}, "pictures": {"train": 12}}
    seen = {"sizes": {(4, 6): 2, (10, 6): 1}, "modes": {"RGB": 2, "L": 1}}
    return Report(**{"root": None, "layout": "birds", **counts, **seen, **empty, **given})


def test_the_text_of_a_sound_set():
    assert str(report()).splitlines() == [
        "built-in pictures: layout birds, two birds",
        "  train        12 pictures  folder train/",
        "birds: 2",
        "width: min 4, median 4, max 10 pixels",
        "height: min 6, median 6, max 6 pixels",
        "modes: L 1, RGB 2",
        "no problems",
    ]
    assert not report().damaged


def test_a_long_list_is_cut_and_says_so():
    files = tuple(f"{k}.png: empty" for k in range(12))
    damaged = report(damaged_files=files, problems=("pictures that will not open: 12",))
    assert damaged.damaged
    assert str(damaged).splitlines()[-15:] == [
        "modes: L 1, RGB 2",
        "damaged: 12",
        *(f"  {file}" for file in files[:10]),
        "  … and 2 more",
        "problems: 1",
        "  pictures that will not open: 12",
    ]
    assert "more" not in str(report(ignored=files[:10]))


def test_each_picture_is_seen_once_and_then_counted():
    splits, calls = {"train": Names("ab"), "val": Names("c")}, []
    pictures = each_picture(splits, lambda done, total: calls.append((done, total)))
    assert next(pictures) == ("train", ["a", "b"], 0)
    assert calls == []
    assert [(split, index) for split, _, index in pictures] == [("train", 1), ("val", 0)]
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_split_that_is_another_over_again_is_left_out():
    val = Names("a")
    splits = {"train": Names(), "val": val, "test": val, "more": Names("a")}
    assert list(distinct_splits(splits)) == ["val", "more"]


def test_equal_pictures_have_the_same_size_and_pixels():
    splits, seen = {"train": Names("ab"), "val": Names("cd")}, Seen()
    white, wide, black = (
        Image.new("RGB", size, color)
        for size, color in (((2, 3), "white"), ((3, 2), "white"), ((2, 3), "black"))
    )
    for split, index, image in (
        *(("train", 0, white), ("train", 1, wide)),
        *(("val", 0, white), ("val", 1, black)),
    ):
        seen.add_picture(split, index, image, image.mode)
    assert seen.sizes == {(2, 3): 3, (3, 2): 1}
    groups = seen.equal_pictures(splits)
    assert groups == ((("train", "a"), ("val", "c")),)
    assert found_in_several(groups) == [
        "pictures found in more than one split: 1, such as a (train) = c (val)"
    ]
    assert found_in_several([(("train", "a"), ("train", "b"))]) == []


@pytest.mark.parametrize("parts", [{}, {"all": Names("a")}])
def test_parts_that_cannot_be_divided_stay_as_found(parts):
    def make():
        raise ValueError("too few pictures")

    found = Found(parts, dict.fromkeys(parts, "folder"))
    splits, origins, problems = splits_or_parts(found, make)
    assert (splits, origins) == (parts, found.origins)
    assert problems == ["one problem", *(["too few pictures"] if parts else [])]
