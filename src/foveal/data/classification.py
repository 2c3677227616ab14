"""Pictures with their classes, ready to be trained on: any layout, always three splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveal.data.image_labels import one_each
from foveal.data.layouts import LAYOUTS, locate
from foveal.data.parts import Found, Pictures, StoredPictures
from foveal.data.read_data import ReadData
from foveal.data.splits import class_problems, make_splits, require_classes

__all__ = ["ClassificationData", "Pictures", "find_classification", "read_classification"]


@dataclass(frozen=True, kw_only=True)
class ClassificationData(ReadData[StoredPictures]):
    """Pictures and classes of a classification task.

    Attributes, beside those of :class:`~foveal.data.read_data.ReadData`:
        classes: class names; a target is an index into them.
        multi_label: whether targets are float32 [N, K].
    """

    classes: tuple[str, ...]
    multi_label: bool


def read_classification(
    root: str | Path | None,
    layout: str = "auto",
    *,
    labels: str | None = None,
    domain: str | None = None,
    multi_label: bool = False,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
) -> ClassificationData:
    """Read labelled pictures and make the splits that the layout does not have.

    Args:
        root: folder or file; None for the built-in pictures.
        layout: name of the layout, or ``auto`` to look.
        labels: which labels, where the layout has several sets of them; None: its first.
        domain: which domain, where the layout has several; None: its first.
        multi_label: whether a picture may show several classes or none: those that a CSV lists,
            those of a data set for segmentation, or the one of a data set for classification.
        val_fraction: share of the training pictures for validation where no part is given.
        test_fraction: share for testing where the layout has only one folder of pictures.
        split_seed: of those two draws, which are stratified by class.

    Raises:
        FileNotFoundError: nothing at ``root``.
        ValueError: an unknown layout, data of another task, no pictures, fewer than two classes,
            a class that a split lacks or that is too small to divide (both are allowed in
            multi-label data, and the first is noted), or files that are damaged.
        ImportError: the layout needs an extra that is not installed.
    """
    name, found = find_classification(
        root, layout, labels=labels, domain=domain, multi_label=multi_label
    )
    if found.problems:
        raise ValueError(first_of(found.problems))
    require_classes(found)
    splits, origins = make_splits(found, val_fraction, test_fraction, split_seed)
    lacking = class_problems(found, splits)
    if lacking and not found.multi_label:  # there, a class that a split lacks is of no harm
        raise ValueError(first_of(lacking))
    return ClassificationData(
        layout=name,
        root=None if LAYOUTS[name].built_in else str(root),
        classes=found.classes,
        splits=splits,
        origins=origins,
        image_size=found.image_size,
        multi_label=found.multi_label,
        notes=(*found.notes, *lacking),
    )


def find_classification(
    root: str | Path | None,
    layout: str = "auto",
    *,
    labels: str | None = None,
    domain: str | None = None,
    multi_label: bool = False,
) -> tuple[str, Found]:
    """Return the layout's name and what its reader finds, before splits are made and checked.

    Raises:
        FileNotFoundError, ValueError, ImportError: as :func:`read_classification`.
    """
    name, path = locate(root, layout, "classify", default="fashion", multi_label=multi_label)
    row = LAYOUTS[name]
    options: dict[str, Any] = {"multi_label": multi_label} if row.multi_label else {}
    options |= row.choices(path or name, labels, domain)
    read = row.reader("classify", multi_label=multi_label)
    assert read is not None  # or locate() would have complained
    found = read(**options) if path is None else read(path, **options)
    assert isinstance(found, Found)
    return name, one_each(found) if multi_label and not found.multi_label else found


def first_of(problems: Sequence[str]) -> str:
    """Return the first sentence, and how many more there are."""
    more = len(problems) - 1
    return problems[0] + (f" (and {more} more such problems)" if more else "")
