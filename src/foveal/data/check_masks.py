"""Looking at every picture and mask of a data set once, and telling what is there and wrong."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveal.data.check_report import (
    CheckReport,
    Seen,
    distinct_splits,
    each_picture,
    found_in_several,
    numbers_of,
    splits_or_parts,
)
from foveal.data.layouts import LAYOUTS
from foveal.data.masks import (
    IGNORED,
    FoundMasks,
    MaskedPictures,
    SizesDifferError,
    WrongLabelsError,
)
from foveal.data.pictures import DamagedPictureError
from foveal.data.segmentation import find_segmentation
from foveal.data.splits import make_mask_splits


@dataclass(frozen=True, kw_only=True)
class MaskReport(CheckReport):
    """What a segmentation data set holds; ``str()`` is the text to print.

    Has what every :class:`~foveal.data.check_report.CheckReport` has, and:

    Attributes:
        classes: class names.
        pixels: for each split the number of pixels of each class, and last of ignored ones.
        showing: for each split the number of pictures that show each class.
        mask_modes: Pillow's mode in the file → number of masks.
        sizes_differ: ``path: reason`` of every picture whose mask has another size.
        wrong_labels: ``path: reason`` of every mask that has values which are no classes, or
            colours.
    """

    classes: tuple[str, ...]
    pixels: Mapping[str, tuple[int, ...]]
    showing: Mapping[str, tuple[int, ...]]
    mask_modes: Mapping[str, int]
    sizes_differ: tuple[str, ...]
    wrong_labels: tuple[str, ...]

    def _contents(self) -> str:
        return f"{len(self.classes)} classes"

    def _table(self) -> list[str]:
        """Return a table of classes: share of the pixels that have one, pictures that show it."""
        if not self.pixels:
            return []
        width = max(len(name) for name in ("ignored", *self.classes))
        head = "".join(f"{split:>18}" for split in self.pixels)
        lines = [
            "share of labelled pixels, and pictures that show a class",
            f"  {'':<{width}}{head}",
        ]
        labelled = {split: max(1, sum(counts[:-1])) for split, counts in self.pixels.items()}
        for k, name in enumerate(self.classes):
            cells = [
                f"{100 * counts[k] / labelled[split]:>9.3f} %{self.showing[split][k]:>7}"
                for split, counts in self.pixels.items()
            ]
            if any(counts[k] for counts in self.pixels.values()):
                lines.append(f"  {name:<{width}}" + "".join(cells))
        ignored = [
            f"{100 * counts[-1] / max(1, sum(counts)):>9.3f} %{'':>7}"
            for counts in self.pixels.values()
        ]
        lines.append(f"  {'ignored':<{width}}" + "".join(ignored).rstrip() + "  (of all pixels)")
        return lines

    def _stored(self) -> dict[str, Mapping[str, int]]:
        return {"modes of masks": self.mask_modes}

    def _faults(self) -> dict[str, tuple[str, ...]]:
        others = {"sizes that differ": self.sizes_differ, "wrong labels": self.wrong_labels}
        return super()._faults() | others


def check_segmentation(
    root: str | Path | None,
    layout: str = "auto",
    *,
    labels: str | None = None,
    domain: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> MaskReport:
    """Decode every picture and mask once and report what the data hold.

    Args:
        root: as :func:`read_segmentation`, and so the six arguments after it.
        layout: name of the layout, or ``auto`` to look.
        labels: which labels, where the layout has several sets of them.
        domain: which domain, where the layout has several.
        val_fraction: share drawn for validation.
        test_fraction: share drawn for testing.
        split_seed: seed of the draws.
        progress: called with the number of pictures done and of all.

    Raises:
        FileNotFoundError, ValueError: nothing can be read at all; what is wrong with data that can
            be read goes into the report.
    """
    name, found = find_segmentation(root, layout, labels=labels, domain=domain)
    splits, origins, problems = splits_or_parts(
        found, lambda: make_mask_splits(found, val_fraction, test_fraction, split_seed)
    )
    distinct = distinct_splits(splits)
    seen = _look(distinct, len(found.classes), progress)
    equal = seen.equal_pictures(distinct)
    problems += numbers_of(
        {
            "pictures or masks that will not open": seen.damaged,
            "pictures whose masks are of another size": seen.sizes_differ,
            "masks with wrong labels": seen.wrong_labels,
        }
    )
    problems += found_in_several(equal)
    return MaskReport(
        root=None if LAYOUTS[name].built_in else str(root),
        layout=name,
        classes=found.classes,
        origins=origins,
        pictures={split: len(pictures) for split, pictures in splits.items()},
        pixels={split: tuple(counts.tolist()) for split, counts in seen.pixels.items()},
        showing={split: tuple(counts.tolist()) for split, counts in seen.showing.items()},
        sizes=seen.sizes,
        modes=seen.modes,
        mask_modes=seen.mask_modes,
        damaged_files=tuple(seen.damaged),
        sizes_differ=tuple(seen.sizes_differ),
        wrong_labels=tuple(seen.wrong_labels),
        duplicates=equal,
        ignored=found.ignored,
        problems=tuple(problems),
        notes=(*found.notes, *_class_notes(found, seen.showing)),
    )


@dataclass(frozen=True)
class _Seen(Seen):
    """What the masks show, too."""

    pixels: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    showing: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    mask_modes: Counter[str] = field(default_factory=Counter)
    sizes_differ: list[str] = field(default_factory=list)
    wrong_labels: list[str] = field(default_factory=list)

    def complain(self, error: DamagedPictureError) -> None:
        """List a picture that cannot be used under what is wrong with it."""
        kind = {SizesDifferError: self.sizes_differ, WrongLabelsError: self.wrong_labels}
        kind.get(type(error), self.damaged).append(str(error))


def _look(
    splits: Mapping[str, MaskedPictures],
    num_classes: int,
    progress: Callable[[int, int], None] | None,
) -> _Seen:
    seen = _Seen()
    for split in splits:
        seen.pixels[split] = np.zeros(num_classes + 1, np.int64)
        seen.showing[split] = np.zeros(num_classes, np.int64)
    for split, pictures, index in each_picture(splits, progress):
        try:
            image, labels, mode, mask_mode = pictures.decode(index)
        except DamagedPictureError as error:
            seen.complain(error)
        else:
            counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)
            seen.pixels[split] += [*counts[:num_classes], counts[IGNORED]]
            seen.showing[split] += counts[:num_classes] > 0
            seen.mask_modes[mask_mode] += 1
            seen.add_picture(split, index, image, mode)
    return seen


def _class_notes(found: FoundMasks, showing: Mapping[str, NDArray[np.int64]]) -> list[str]:
    """Return sentences about classes that no picture, or no training picture, shows."""
    if not showing:
        return []
    shown = {split: counts > 0 for split, counts in showing.items()}
    never = _names(found, ~np.any(list(shown.values()), axis=0))
    notes = [f"classes that no picture shows: {never}"] if never else []
    for split, classes in shown.items():
        names = _names(found, classes & ~shown.get("train", classes))
        if names:
            notes.append(f"classes that {split} shows, but no training picture: {names}")
    return notes


def _names(found: FoundMasks, which: NDArray[np.bool_]) -> str:
    names = [found.classes[k] for k in np.flatnonzero(which)]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
