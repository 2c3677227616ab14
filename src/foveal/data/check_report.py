"""What checks of any data set have in common: one pass over all pictures, and the report."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol, TypeVar

from PIL import Image

from foveal.data.pictures import printable


class _Named(Sized, Protocol):
    def name(self, index: int) -> str: ...


P = TypeVar("P", bound=_Named)
P_co = TypeVar("P_co", bound=_Named, covariant=True)

Group = tuple[tuple[str, str], ...]
"""(split, name) of pictures that are equal."""

_MOST_LINES = 10


class _Found(Protocol[P_co]):
    """What a reader found; see :class:`~foveal.data.parts.Found`."""

    @property
    def parts(self) -> Mapping[str, P_co]: ...

    @property
    def origins(self) -> Mapping[str, str]: ...

    @property
    def problems(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What any data set holds; ``str()`` is the text to print.

    Attributes:
        root: what was read; None for the built-in pictures.
        layout: name of the layout.
        origins: for each split one phrase that says where it came from.
        pictures: for each split the number of pictures.
        sizes: (width, height) in pixels → number of pictures.
        modes: Pillow's mode in the file → number of pictures.
        damaged_files: ``path: reason`` of every file that will not open.
        duplicates: groups of (split, name) of pictures whose decoded pixels are equal.
        ignored: files that the layout does not read.
        problems: sentences about what is to be put right; empty if all is well.
        notes: sentences about what a reader of results should know.
    """

    root: str | None
    layout: str
    origins: Mapping[str, str]
    pictures: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    damaged_files: tuple[str, ...]
    duplicates: tuple[Group, ...]
    ignored: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def damaged(self) -> bool:
        """Whether a file will not open, or what belongs together does not fit."""
        return any(self._faults().values())

    def __str__(self) -> str:
        """Return the report as text."""
        text = "\n".join(
            [
                f"{self.root or 'built-in pictures'}: layout {self.layout}, {self._contents()}",
                *(
                    f"  {split:<5}  {self.pictures[split]:>8} pictures  {origin}"
                    for split, origin in self.origins.items()
                ),
                *self._table(),
                *_size_lines(self.sizes),
                *_mode_lines("modes", self.modes),
                *(
                    line
                    for title, modes in self._stored().items()
                    for line in _mode_lines(title, modes)
                ),
                *_block(
                    "equal pictures (decoded pixels)", [_group(group) for group in self.duplicates]
                ),
                *_block("not read", self.ignored),
                *_block("notes", self.notes),
                *(line for title, files in self._faults().items() for line in _block(title, files)),
                *(_block("problems", self.problems) or ["no problems"]),
            ]
        )
        return printable(text)

    def _contents(self) -> str:
        """Return what there is, for the first line: ``10 classes``."""
        raise NotImplementedError

    def _table(self) -> list[str]:
        """Return lines on how much there is of what the pictures show."""
        raise NotImplementedError

    def _stored(self) -> dict[str, Mapping[str, int]]:
        """Return, by title, the kinds of masks or maps → their number."""
        return {}

    def _faults(self) -> dict[str, tuple[str, ...]]:
        """Return, by title, ``path: reason`` of every file that cannot be used."""
        return {"damaged": self.damaged_files}


@dataclass(frozen=True)
class Seen:
    """What one pass over all pictures shows.

    Attributes:
        sizes: (width, height) in pixels → number of pictures.
        modes: Pillow's mode in the file → number of pictures.
        damaged: ``path: reason`` of every file that will not open.
        places: (split, index) of the pictures that have the same hash of decoded pixels.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    places: dict[bytes, list[tuple[str, int]]] = field(default_factory=dict)

    def add_picture(self, split: str, index: int, image: Image.Image, mode: str) -> None:
        """Count a picture that was decoded."""
        self.sizes[image.size] += 1
        self.modes[mode] += 1
        self.places.setdefault(_pixel_hash(image), []).append((split, index))

    def equal_pictures(self, splits: Mapping[str, _Named]) -> tuple[Group, ...]:
        """Return groups of pictures that are equal, by their names in ``splits``."""
        return tuple(
            tuple((split, splits[split].name(index)) for split, index in group)
            for group in self.places.values()
            if len(group) > 1
        )


def each_picture(
    splits: Mapping[str, P], progress: Callable[[int, int], None] | None
) -> Iterator[tuple[str, P, int]]:
    """Yield (split, its pictures, index) of every picture, and tell how many are done."""
    total, done = sum(len(pictures) for pictures in splits.values()), 0
    for split, pictures in splits.items():
        for index in range(len(pictures)):
            yield split, pictures, index
            done += 1
            if progress is not None:
                progress(done, total)


def splits_or_parts(
    found: _Found[P], make: Callable[[], tuple[dict[str, P], dict[str, str]]]
) -> tuple[dict[str, P], dict[str, str], list[str]]:
    """Return the splits, or the parts as found where they cannot be divided; origins; problems.

    Args:
        found: what a reader found.
        make: returns splits and origins, or raises ``ValueError``.
    """
    problems = list(found.problems)
    if not found.parts:
        return {}, {}, problems
    try:
        splits, origins = make()
    except ValueError as error:
        return dict(found.parts), dict(found.origins), [*problems, str(error)]
    return splits, origins, problems


def distinct_splits(splits: Mapping[str, P]) -> dict[str, P]:
    """Leave out empty splits, and one that is another over again."""
    distinct: dict[str, P] = {}
    for split, pictures in splits.items():
        if len(pictures) and not any(pictures is other for other in distinct.values()):
            distinct[split] = pictures
    return distinct


def numbers_of(faults: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a problem for each kind of fault that there is: how many files have it."""
    return [f"{what}: {len(files)}" for what, files in faults.items() if files]


def found_in_several(groups: Sequence[Group]) -> list[str]:
    """Return a problem where equal pictures lie in different splits."""
    across = [group for group in groups if len({split for split, _ in group}) > 1]
    if not across:
        return []
    return [f"pictures found in more than one split: {len(across)}, such as {_group(across[0])}"]


def _group(group: Group) -> str:
    return " = ".join(f"{name} ({split})" for split, name in group)


def _size_lines(sizes: Mapping[tuple[int, int], int]) -> list[str]:
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


def _mode_lines(title: str, modes: Mapping[str, int]) -> list[str]:
    """Return the modes with their numbers as one line of text, or nothing."""
    found = ", ".join(f"{mode} {count}" for mode, count in sorted(modes.items()))
    return [f"{title}: {found}"] if found else []


def _pixel_hash(image: Image.Image) -> bytes:
    """Return a hash of a picture's size and pixels."""
    pixels = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    pixels.update(image.tobytes())
    return pixels.digest()


def _block(title: str, lines: Sequence[str]) -> list[str]:
    """Return a headed list of at most ten lines, and how many more there are."""
    if not lines:
        return []
    more = len(lines) - _MOST_LINES
    shown = [f"  {line}" for line in lines[:_MOST_LINES]]
    return [f"{title}: {len(lines)}", *shown, *([f"  … and {more} more"] if more > 0 else [])]
