"""Looking at every picture of a data set once, and telling what is there and what is wrong."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol, TypeVar

from PIL import Image

from foveal.data.classification import find_classification
from foveal.data.layouts import LAYOUTS
from foveal.data.parts import Found, StoredPictures
from foveal.data.pictures import DamagedPictureError, printable
from foveal.data.splits import class_counts, class_problems, make_splits, require_classes


class _Named(Sized, Protocol):
    def name(self, index: int) -> str: ...


P = TypeVar("P", bound=_Named)

_MOST_LINES = 10


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What a data set holds; ``str()`` is the text to print.

    Attributes:
        root: what was read; None for the built-in pictures.
        layout: name of the layout.
        classes: class names.
        origins: for each split one phrase that says where it came from.
        counts: for each split the number of pictures of each class.
        pictures: for each split the number of pictures.
        sizes: (width, height) in pixels → number of pictures.
        modes: Pillow's mode in the file → number of pictures.
        damaged_files: ``path: reason`` of every picture that will not open.
        duplicates: groups of (split, name) of pictures whose decoded pixels are equal.
        ignored: files that the layout does not read.
        problems: sentences about what is to be put right; empty if all is well.
        notes: sentences about what a reader of results should know.
    """

    root: str | None
    layout: str
    classes: tuple[str, ...]
    origins: Mapping[str, str]
    counts: Mapping[str, tuple[int, ...]]
    pictures: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    damaged_files: tuple[str, ...]
    duplicates: tuple[tuple[tuple[str, str], ...], ...]
    ignored: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def damaged(self) -> bool:
        """Whether a picture will not open."""
        return bool(self.damaged_files)

    def __str__(self) -> str:
        """Return the report as text."""
        text = "\n".join(
            [
                f"{self.root or 'built-in pictures'}: layout {self.layout}, "
                f"{len(self.classes)} classes",
                *self._splits(),
                *self._classes(),
                *size_lines(self.sizes),
                *mode_lines("modes", self.modes),
                *duplicate_lines(self.duplicates),
                *block("not read", self.ignored),
                *block("notes", self.notes),
                *block("damaged", self.damaged_files),
                *(block("problems", self.problems) or ["no problems"]),
            ]
        )
        return printable(text)

    def _splits(self) -> list[str]:
        return [
            f"  {split:<5}  {self.pictures[split]:>8} pictures  {origin}"
            for split, origin in self.origins.items()
        ]

    def _classes(self) -> list[str]:
        """Return the balance, and a table of the classes that any split shows."""
        lines = ["pictures of a class"]
        for split, counts in self.counts.items():
            shown = [count for count in counts if count]
            if shown:
                lines.append(
                    f"  {split:<5}  min {min(shown)}, median {median(shown):g}, max {max(shown)}"
                    + (f" ({len(counts) - len(shown)} classes have none)" if 0 in counts else "")
                )
        width = max((len(name) for name in self.classes), default=0)
        lines.append("  " + " " * width + "".join(f"{split:>8}" for split in self.counts))
        for k, name in enumerate(self.classes):
            row = [counts[k] for counts in self.counts.values()]
            if any(row):
                lines.append(f"  {name:<{width}}" + "".join(f"{count:>8}" for count in row))
        return lines


def check_classification(
    root: str | Path | None,
    layout: str = "auto",
    *,
    labels: str | None = None,
    domain: str | None = None,
    multi_label: bool = False,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Decode every picture once and report what the data hold.

    Args:
        root: as :func:`read_classification`, and so the seven arguments after it.
        layout: name of the layout, or ``auto`` to look.
        labels: which labels, where the layout has several sets of them.
        domain: which domain, where the layout has several.
        multi_label: whether a picture may show several classes or none.
        val_fraction: share drawn for validation.
        test_fraction: share drawn for testing.
        split_seed: seed of the draws.
        progress: called with the number of pictures done and of all.

    Raises:
        FileNotFoundError, ValueError, ImportError: nothing can be read at all; what is wrong with
            data that can be read goes into the report's ``problems``.
    """
    name, found = find_classification(
        root, layout, labels=labels, domain=domain, multi_label=multi_label
    )
    splits, origins, problems = _splits(found, val_fraction, test_fraction, split_seed)
    distinct = distinct_splits(splits)
    seen = _look(distinct, progress)
    equal = equal_pictures(distinct, seen.places)
    if seen.damaged:
        problems.append(f"pictures that will not open: {len(seen.damaged)}")
    problems += found_in_several(equal)
    return DataReport(
        root=None if LAYOUTS[name].built_in else str(root),
        layout=name,
        classes=found.classes,
        origins=origins,
        counts={
            split: tuple(class_counts(pictures.targets, len(found.classes)).tolist())
            for split, pictures in distinct.items()
        },
        pictures={split: len(pictures) for split, pictures in splits.items()},
        sizes=seen.sizes,
        modes=seen.modes,
        damaged_files=tuple(seen.damaged),
        duplicates=equal,
        ignored=found.ignored,
        problems=tuple(problems),
        notes=found.notes,
    )


def _splits(
    found: Found, val_fraction: float, test_fraction: float, seed: int
) -> tuple[dict[str, StoredPictures], dict[str, str], list[str]]:
    """Return the splits, or the parts as found where they cannot be divided, and problems."""
    problems = list(found.problems)
    try:
        require_classes(found)
        splits, origins = make_splits(found, val_fraction, test_fraction, seed)
    except ValueError as error:
        return dict(found.parts), dict(found.origins), [*problems, str(error)]
    return splits, origins, problems + class_problems(found, splits)


def distinct_splits(splits: Mapping[str, P]) -> dict[str, P]:
    """Leave out empty splits, and one that is another over again."""
    distinct: dict[str, P] = {}
    for split, pictures in splits.items():
        if len(pictures) and not any(pictures is other for other in distinct.values()):
            distinct[split] = pictures
    return distinct


def equal_pictures(
    splits: Mapping[str, P], places: Mapping[bytes, Sequence[tuple[str, int]]]
) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Return groups of (split, name) of pictures that are equal.

    Args:
        splits: all pictures.
        places: (split, index) of the pictures that have the same hash.
    """
    return tuple(
        tuple((split, splits[split].name(index)) for split, index in group)
        for group in places.values()
        if len(group) > 1
    )


@dataclass(frozen=True)
class _Seen:
    """What one pass over all pictures shows; ``places`` are by the hash of decoded pixels."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    places: dict[bytes, list[tuple[str, int]]] = field(default_factory=dict)


def _look(
    splits: Mapping[str, StoredPictures], progress: Callable[[int, int], None] | None
) -> _Seen:
    seen = _Seen()
    total, done = sum(len(pictures) for pictures in splits.values()), 0
    for split, pictures in splits.items():
        for index in range(len(pictures)):
            try:
                image, mode = pictures.decode(index)
            except DamagedPictureError as error:
                seen.damaged.append(str(error))
            else:
                seen.sizes[image.size] += 1
                seen.modes[mode] += 1
                seen.places.setdefault(pixel_hash(image), []).append((split, index))
            done += 1
            if progress is not None:
                progress(done, total)
    return seen


def size_lines(sizes: Mapping[tuple[int, int], int]) -> list[str]:
    """Return smallest, median and largest width and height as text.

    Args:
        sizes: (width, height) in pixels → number of pictures.
    """
    if not sizes:
        return []
    lines = []
    for name, axis in (("width", 0), ("height", 1)):
        sides = sorted(size[axis] for size, count in sizes.items() for _ in range(count))
        lines.append(f"{name}: min {sides[0]}, median {median(sides):g}, max {sides[-1]} pixels")
    return lines


def mode_lines(title: str, modes: Mapping[str, int]) -> list[str]:
    """Return the modes with their numbers as one line of text, or nothing."""
    found = ", ".join(f"{mode} {count}" for mode, count in sorted(modes.items()))
    return [f"{title}: {found}"] if found else []


def duplicate_lines(groups: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """Return groups of (split, name) of equal pictures as text."""
    lines = [" = ".join(f"{where} ({split})" for split, where in group) for group in groups]
    return block("equal pictures (decoded pixels)", lines)


def found_in_several(groups: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """Return a problem where equal pictures lie in different splits."""
    across = [group for group in groups if len({split for split, _ in group}) > 1]
    if not across:
        return []
    example = " = ".join(f"{where} ({split})" for split, where in across[0])
    return [f"pictures found in more than one split: {len(across)}, such as {example}"]


def pixel_hash(image: Image.Image) -> bytes:
    """Return a hash of a picture's size and pixels."""
    pixels = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    pixels.update(image.tobytes())
    return pixels.digest()


def block(title: str, lines: Sequence[str]) -> list[str]:
    """Return a headed list of at most ten lines, and how many more there are."""
    if not lines:
        return []
    more = len(lines) - _MOST_LINES
    shown = [f"  {line}" for line in lines[:_MOST_LINES]]
    return [f"{title}: {len(lines)}", *shown, *([f"  … and {more} more"] if more > 0 else [])]
