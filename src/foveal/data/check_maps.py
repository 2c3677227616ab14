"""Looking at every picture and map of a data set once, and telling what is there and wrong."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foveal.data.check_report import (
    CheckReport,
    Seen,
    distinct_splits,
    each_picture,
    found_in_several,
    numbers_of,
    splits_or_parts,
)
from foveal.data.dense import find_dense
from foveal.data.layouts import LAYOUTS
from foveal.data.maps import MappedPictures, Truth
from foveal.data.masks import SizesDifferError, WrongLabelsError
from foveal.data.pictures import DamagedPictureError
from foveal.data.splits import make_map_splits


@dataclass(frozen=True, kw_only=True)
class MapReport(CheckReport):
    """What a set of pictures with maps holds; ``str()`` is the text to print.

    Has what every :class:`~foveal.data.check_report.CheckReport` has, and:

    Attributes:
        task: ``saliency``, ``edge`` or ``skeleton``.
        positive: for each split the mean of all pixels of its maps, in [0, 1]: the share of
            positive ones, each counted by the share of annotators who marked it.
        empty: for each split the number of pictures without any positive pixel.
        kinds: how a map is stored, such as ``L`` or ``5 annotators`` → number of maps.
        sizes_differ: ``path: reason`` of every picture whose map has another size.
        wrong_values: ``path: reason`` of every map that is none.
    """

    task: str
    positive: Mapping[str, float]
    empty: Mapping[str, int]
    kinds: Mapping[str, int]
    sizes_differ: tuple[str, ...]
    wrong_values: tuple[str, ...]

    def _contents(self) -> str:
        return f"{self.task} maps"

    def _table(self) -> list[str]:
        if not self.positive:
            return []
        return [
            "share of positive pixels, and pictures without any",
            *(
                f"  {split:<5}  {100 * share:>7.3f} %{self.empty[split]:>7}"
                for split, share in self.positive.items()
            ),
        ]

    def _stored(self) -> dict[str, Mapping[str, int]]:
        return {"maps": self.kinds}

    def _faults(self) -> dict[str, tuple[str, ...]]:
        others = {"sizes that differ": self.sizes_differ, "wrong values": self.wrong_values}
        return super()._faults() | others


def check_dense(
    root: str | Path | None,
    layout: str = "auto",
    *,
    task: str | None = None,
    domain: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> MapReport:
    """Decode every picture and map once and report what the data hold.

    Args:
        root: as :func:`read_dense`, and so the six arguments after it.
        layout: name of the layout, or ``auto`` to look.
        task: ``saliency``, ``edge`` or ``skeleton``; None: the one that the layout has.
        domain: which domain, where the layout has several.
        val_fraction: share drawn for validation.
        test_fraction: share drawn for testing.
        split_seed: seed of the draws.
        progress: called with the number of pictures done and of all.

    Raises:
        FileNotFoundError, ValueError: nothing can be read at all; what is wrong with data that can
            be read goes into the report.
    """
    name, task, found = find_dense(root, layout, task=task, domain=domain)
    splits, origins, problems = splits_or_parts(
        found, lambda: make_map_splits(found, val_fraction, test_fraction, split_seed)
    )
    distinct = distinct_splits(splits)
    seen = _look(distinct, progress)
    equal = seen.equal_pictures(distinct)
    problems += numbers_of(
        {
            "pictures or maps that will not open": seen.damaged,
            "pictures whose maps are of another size": seen.sizes_differ,
            "maps with wrong values": seen.wrong_values,
        }
    )
    problems += found_in_several(equal)
    return MapReport(
        root=None if LAYOUTS[name].built_in else str(root),
        layout=name,
        task=task,
        origins=origins,
        pictures={split: len(pictures) for split, pictures in splits.items()},
        positive={split: one.sum / max(1, one.pixels) for split, one in seen.splits.items()},
        empty={split: one.empty for split, one in seen.splits.items()},
        sizes=seen.sizes,
        modes=seen.modes,
        kinds=seen.kinds,
        damaged_files=tuple(seen.damaged),
        sizes_differ=tuple(seen.sizes_differ),
        wrong_values=tuple(seen.wrong_values),
        duplicates=equal,
        ignored=found.ignored,
        problems=tuple(problems),
        notes=(*found.notes, *seen.notes()),
    )


@dataclass
class _SeenOfSplit:
    """Sums over the maps of one split."""

    sum: float = 0.0
    pixels: int = 0
    empty: int = 0


@dataclass(frozen=True)
class _Seen(Seen):
    """What the maps show, too."""

    splits: dict[str, _SeenOfSplit] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    sizes_differ: list[str] = field(default_factory=list)
    wrong_values: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    idle_annotators: list[str] = field(default_factory=list)
    scaled: list[str] = field(default_factory=list)

    def complain(self, error: DamagedPictureError) -> None:
        """List a picture that cannot be used under what is wrong with it."""
        kind = {SizesDifferError: self.sizes_differ, WrongLabelsError: self.wrong_values}
        kind.get(type(error), self.damaged).append(str(error))

    def add_map(self, split: str, name: str, truth: Truth) -> None:
        """Add a picture's map to the sums, and to the lists of odd ones."""
        one = self.splits[split]
        one.sum += float(truth.map.sum(dtype=np.float64))
        one.pixels += truth.map.size
        self.kinds[truth.kind] += 1
        if not truth.map.any():
            one.empty += 1
            self.empty.append(name)
        elif len(truth.annotations) > 1:
            self.idle_annotators.extend(name for drawn in truth.annotations if not drawn.any())

    def notes(self) -> list[str]:
        """Return sentences about what is allowed, but worth a look."""
        return [
            f"{what}: {len(names)}, such as {'one of ' if names is self.idle_annotators else ''}"
            f"{names[0]}"
            for what, names in (
                ("pictures without any positive pixel", self.empty),
                ("annotators who marked nothing", self.idle_annotators),
                ("pictures scaled to their map, which is a pixel larger or smaller", self.scaled),
            )
            if names
        ]


def _look(
    splits: Mapping[str, MappedPictures], progress: Callable[[int, int], None] | None
) -> _Seen:
    seen = _Seen(splits={split: _SeenOfSplit() for split in splits})
    for split, pictures, index in each_picture(splits, progress):
        try:
            image, truth, mode = pictures.decode(index)
        except DamagedPictureError as error:
            seen.complain(error)
        else:
            name = pictures.name(index)
            seen.add_map(split, name, truth)
            if pictures.size(index) != truth.size:
                seen.scaled.append(name)
            seen.add_picture(split, index, image, mode)
    return seen
