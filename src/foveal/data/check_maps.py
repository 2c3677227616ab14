"""Looking at every picture and map of a data set once, and telling what is there and wrong."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foveal.data.check import (
    block,
    distinct_splits,
    duplicate_lines,
    found_in_several,
    mode_lines,
    pixel_hash,
    size_lines,
)
from foveal.data.dense import find_dense
from foveal.data.layouts import LAYOUTS
from foveal.data.maps import FoundMaps, MappedPictures, Truth
from foveal.data.masks import SizesDifferError, WrongLabelsError
from foveal.data.pictures import DamagedPictureError, printable
from foveal.data.splits import make_map_splits


@dataclass(frozen=True, kw_only=True)
class MapReport:
    """What a set of pictures with maps holds; ``str()`` is the text to print.

    Attributes:
        root: what was read; None for the built-in pictures.
        layout: name of the layout.
        task: ``saliency``, ``edge`` or ``skeleton``.
        origins: for each split one phrase that says where it came from.
        pictures: for each split the number of pictures.
        positive: for each split the mean of all pixels of its maps, in [0, 1]: the share of
            positive ones, each counted by the share of annotators who marked it.
        empty: for each split the number of pictures without any positive pixel.
        sizes: (width, height) in pixels → number of pictures.
        modes: Pillow's mode in the file → number of pictures.
        kinds: how a map is stored, such as ``L`` or ``5 annotators`` → number of maps.
        damaged_files: ``path: reason`` of every picture or map that will not open.
        sizes_differ: the same of every picture whose map has another size.
        wrong_values: the same of every map that is none.
        duplicates: groups of (split, name) of pictures whose decoded pixels are equal.
        ignored: files that the layout does not read.
        problems: sentences about what is to be put right; empty if all is well.
        notes: sentences about what a reader of results should know.
    """

    root: str | None
    layout: str
    task: str
    origins: Mapping[str, str]
    pictures: Mapping[str, int]
    positive: Mapping[str, float]
    empty: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    kinds: Mapping[str, int]
    damaged_files: tuple[str, ...]
    sizes_differ: tuple[str, ...]
    wrong_values: tuple[str, ...]
    duplicates: tuple[tuple[tuple[str, str], ...], ...]
    ignored: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def damaged(self) -> bool:
        """Whether a picture or map will not open, or they do not fit each other."""
        return bool(self.damaged_files or self.sizes_differ or self.wrong_values)

    def __str__(self) -> str:
        """Return the report as text."""
        text = "\n".join(
            [
                f"{self.root or 'built-in pictures'}: layout {self.layout}, {self.task} maps",
                *(
                    f"  {split:<5}  {self.pictures[split]:>8} pictures  {origin}"
                    for split, origin in self.origins.items()
                ),
                *self._shares(),
                *size_lines(self.sizes),
                *mode_lines("modes", self.modes),
                *mode_lines("maps", self.kinds),
                *duplicate_lines(self.duplicates),
                *block("not read", self.ignored),
                *block("notes", self.notes),
                *block("damaged", self.damaged_files),
                *block("sizes that differ", self.sizes_differ),
                *block("wrong values", self.wrong_values),
                *(block("problems", self.problems) or ["no problems"]),
            ]
        )
        return printable(text)

    def _shares(self) -> list[str]:
        if not self.positive:
            return []
        return [
            "share of positive pixels, and pictures without any",
            *(
                f"  {split:<5}  {100 * share:>7.3f} %{self.empty[split]:>7}"
                for split, share in self.positive.items()
            ),
        ]


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
    splits, origins, problems = _splits(found, val_fraction, test_fraction, split_seed)
    distinct = distinct_splits(splits)
    seen = _look(distinct, progress)
    equal = tuple(
        tuple((split, distinct[split].name(index)) for split, index in places)
        for places in seen.places.values()
        if len(places) > 1
    )
    for what, files in (
        ("pictures or maps that will not open", seen.damaged),
        ("pictures whose maps are of another size", seen.sizes_differ),
        ("maps with wrong values", seen.wrong_values),
    ):
        if files:
            problems.append(f"{what}: {len(files)}")
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
class _Seen:
    """What one pass over all pictures shows; ``places`` are by the hash of decoded pixels."""

    splits: dict[str, _SeenOfSplit] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    sizes_differ: list[str] = field(default_factory=list)
    wrong_values: list[str] = field(default_factory=list)
    places: dict[bytes, list[tuple[str, int]]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    idle_annotators: list[str] = field(default_factory=list)
    scaled: list[str] = field(default_factory=list)

    def complain(self, error: DamagedPictureError) -> None:
        """List a picture that cannot be used under what is wrong with it."""
        kind = {SizesDifferError: self.sizes_differ, WrongLabelsError: self.wrong_values}
        kind.get(type(error), self.damaged).append(str(error))

    def add(self, split: str, name: str, truth: Truth) -> None:
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


def _splits(
    found: FoundMaps, val_fraction: float, test_fraction: float, seed: int
) -> tuple[dict[str, MappedPictures], dict[str, str], list[str]]:
    """Return the splits, or the parts as found where they cannot be divided, and problems."""
    problems = list(found.problems)
    if not found.parts:
        return {}, {}, problems
    try:
        splits, origins = make_map_splits(found, val_fraction, test_fraction, seed)
    except ValueError as error:
        return dict(found.parts), dict(found.origins), [*problems, str(error)]
    return splits, origins, problems


def _look(
    splits: Mapping[str, MappedPictures], progress: Callable[[int, int], None] | None
) -> _Seen:
    seen = _Seen()
    total, done = sum(len(pictures) for pictures in splits.values()), 0
    for split, pictures in splits.items():
        seen.splits[split] = _SeenOfSplit()
        for index in range(len(pictures)):
            try:
                image, truth, mode = pictures.decode(index)
            except DamagedPictureError as error:
                seen.complain(error)
            else:
                name = pictures.name(index)
                seen.add(split, name, truth)
                if pictures.size(index) != truth.size:
                    seen.scaled.append(name)
                seen.sizes[image.size] += 1
                seen.modes[mode] += 1
                seen.places.setdefault(pixel_hash(image), []).append((split, index))
            done += 1
            if progress is not None:
                progress(done, total)
    return seen
