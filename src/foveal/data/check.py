"""Looking at every picture of a data set once, and telling what is there and what is wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from foveal.data.check_report import (
    CheckReport,
    Seen,
    distinct_splits,
    each_picture,
    found_in_several,
    numbers_of,
)
from foveal.data.classification import find_classification
from foveal.data.layouts import LAYOUTS
from foveal.data.parts import Found, StoredPictures
from foveal.data.pictures import DamagedPictureError
from foveal.data.splits import class_counts, class_problems, make_splits, require_classes


@dataclass(frozen=True, kw_only=True)
class DataReport(CheckReport):
    """What a data set holds; ``str()`` is the text to print.

    Has what every :class:`~foveal.data.check_report.CheckReport` has, and:

    Attributes:
        classes: class names.
        counts: for each split the number of pictures of each class.
    """

    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]

    def _contents(self) -> str:
        return f"{len(self.classes)} classes"

    def _table(self) -> list[str]:
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
    splits, origins, problems, notes = _splits(found, val_fraction, test_fraction, split_seed)
    distinct = distinct_splits(splits)
    seen = _look(distinct, progress)
    equal = seen.equal_pictures(distinct)
    problems += numbers_of({"pictures that will not open": seen.damaged})
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
        notes=tuple(notes),
    )


def _splits(
    found: Found, val_fraction: float, test_fraction: float, seed: int
) -> tuple[dict[str, StoredPictures], dict[str, str], list[str], list[str]]:
    """Return the splits, or the parts as found where they cannot be divided; problems; notes."""
    problems, notes = list(found.problems), list(found.notes)
    try:
        require_classes(found)
        splits, origins = make_splits(found, val_fraction, test_fraction, seed)
    except ValueError as error:
        return dict(found.parts), dict(found.origins), [*problems, str(error)], notes
    (notes if found.multi_label else problems).extend(class_problems(found, splits))
    return splits, origins, problems, notes


def _look(
    splits: Mapping[str, StoredPictures], progress: Callable[[int, int], None] | None
) -> Seen:
    seen = Seen()
    for split, pictures, index in each_picture(splits, progress):
        try:
            image, mode = pictures.decode(index)
        except DamagedPictureError as error:
            seen.damaged.append(str(error))
        else:
            seen.add_picture(split, index, image, mode)
    return seen
