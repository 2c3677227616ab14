"""Pictures with label maps, ready to be trained on: any layout, always three splits."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveal.data.classification import first_of
from foveal.data.layouts import LAYOUTS, locate
from foveal.data.masks import IGNORED, FoundMasks, LabelMap, MaskedPictures
from foveal.data.read_data import ReadData
from foveal.data.splits import make_mask_splits

__all__ = [
    "IGNORED",
    "LabelMap",
    "MaskedPictures",
    "SegmentationData",
    "find_segmentation",
    "read_segmentation",
]


@dataclass(frozen=True, kw_only=True)
class SegmentationData(ReadData[MaskedPictures]):
    """Pictures, label maps and classes of a segmentation task.

    Attributes, beside those of :class:`~foveal.data.read_data.ReadData`:
        classes: class names; a label is an index into them, 255 is ignored.
        colors: of the classes, uint8 [K, 3], for palettes of masks and overlays.
        pseudo: splits whose masks are pseudo labels, not the truth.
    """

    classes: tuple[str, ...]
    colors: NDArray[np.uint8] = field(compare=False)
    pseudo: tuple[str, ...] = ()


def read_segmentation(
    root: str | Path | None,
    layout: str = "auto",
    *,
    labels: str | None = None,
    domain: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
) -> SegmentationData:
    """Read pictures with masks and make the splits that the layout does not have.

    A mask is opened when its picture is; only then, or by ``foveal data check``, are wrong values
    in it found.

    Args:
        root: folder; None for the built-in scenes.
        layout: name of the layout, or ``auto`` to look.
        labels: which labels, where the layout has several sets of them; None: the usual.
        domain: which domain, where the layout has several; None: its first.
        val_fraction: share of the training pictures for validation where no part is given.
        test_fraction: share for testing where the layout has only one folder of pictures.
        split_seed: of those two draws, which do not look at what the pictures show.

    Raises:
        FileNotFoundError: nothing at ``root``.
        ValueError: an unknown layout, data of another task, no pictures, a picture or mask
            without partner, or too few pictures to divide.
    """
    name, found = find_segmentation(root, layout, labels=labels, domain=domain)
    if found.problems:
        raise ValueError(first_of(found.problems))
    splits, origins = make_mask_splits(found, val_fraction, test_fraction, split_seed)
    return SegmentationData(
        layout=name,
        root=None if LAYOUTS[name].built_in else str(root),
        classes=found.classes,
        splits=splits,
        origins=origins,
        colors=found.colors,
        pseudo=found.pseudo,
        image_size=found.image_size,
        notes=found.notes,
    )


def find_segmentation(
    root: str | Path | None,
    layout: str = "auto",
    *,
    labels: str | None = None,
    domain: str | None = None,
) -> tuple[str, FoundMasks]:
    """Return the layout's name and what its reader finds, before splits are made and checked.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_segmentation`.
    """
    name, path = locate(root, layout, "segment", default="scenes")
    row = LAYOUTS[name]
    options = row.choices(path or name, labels, domain)
    read = row.reader("segment")
    assert read is not None  # or locate() would have complained
    found = read(**options) if path is None else read(path, **options)
    assert isinstance(found, FoundMasks)
    if not found.parts and not found.problems:
        raise ValueError(f"{path}: no pictures in it")
    return name, found
