"""Pictures with labels of the whole picture, and masks to be scored by where there are some.

Label maps of these pictures have one numbering everywhere: 0 is background, the class with index
k among the image labels has the label k + 1, 255 is ignored.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.data.classification import ClassificationData, read_classification
from foveal.data.layouts import LAYOUTS
from foveal.data.masks import IGNORED, LabelMap, MaskedPictures, RenumberedMasks
from foveal.data.palette import voc_palette
from foveal.data.parts import ChosenPictures, StoredPictures
from foveal.data.pictures import is_turned
from foveal.data.segmentation import SegmentationData, read_segmentation
from foveal.data.splits import SPLITS

BACKGROUND = "background"
"""Name of label 0 where no masks give it another."""

MOST_CLASSES = IGNORED - 1


class WeakPictures:
    """The pictures of one split with image labels, and the masks that some of them have.

    Args:
        pictures: multi-label.
        masks: of some of them, by index: a collection and the index there.
    """

    def __init__(
        self, pictures: StoredPictures, masks: Mapping[int, tuple[MaskedPictures, int]]
    ) -> None:
        self.pictures, self.masks = pictures, masks

    @property
    def targets(self) -> NDArray[np.float32]:
        """Which classes each picture shows, float32 [N, K] of 0 and 1."""
        return self.pictures.targets

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pictures)

    def load(self, index: int) -> Image.Image:
        """Return a picture as RGB; raises :class:`DamagedPictureError`."""
        return self.pictures.load(index)

    def name(self, index: int) -> str:
        """Return where a picture is."""
        return self.pictures.name(index)

    def choose(self, indices: NDArray[np.int64]) -> "WeakPictures":
        """Return some of the pictures."""
        masks = {
            new: self.masks[old] for new, old in enumerate(indices.tolist()) if old in self.masks
        }
        return WeakPictures(ChosenPictures(self.pictures, indices), masks)

    def truth(self, index: int) -> LabelMap | None:
        """Return the true label map, uint8 [H, W], to score by; None where there is none.

        A picture that its EXIF orientation turns has none: masks are drawn on the stored pixels.

        Raises:
            DamagedPictureError: the mask does not open or does not fit.
        """
        if index not in self.masks or is_turned(self.name(index)):
            return None
        pictures, position = self.masks[index]
        return pictures.labels(position)


@dataclass(frozen=True, kw_only=True)
class WeakData:
    """Pictures and classes of a run from image labels.

    Attributes:
        layout: name of the layout that was read.
        root: what was read; None for the built-in pictures.
        classes: names of the labels: the background's, then those of the K classes.
        colors: of the labels, uint8 [K + 1, 3].
        splits: the pictures of ``train``, ``val`` and ``test`` that have image labels.
        held_out: the pictures of ``val`` and ``test`` with true masks; empty where one of both has
            none.
        origins: for each split one phrase that says where it came from.
        image_size: side that networks see unless told otherwise, where the layout suggests one.
        notes: sentences to print beside results.
    """

    layout: str
    root: str | None
    classes: tuple[str, ...]
    colors: NDArray[np.uint8] = field(compare=False)
    splits: Mapping[str, WeakPictures]
    held_out: Mapping[str, MaskedPictures]
    origins: Mapping[str, str]
    image_size: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits with pictures of their own: not ``test`` where it is ``val`` over again."""
        again = "same pictures as val" in self.origins["test"]
        return SPLITS[:2] if again else SPLITS

    def describe(self) -> str:
        """Say what the data are: the layout, a line per split, notes."""
        head = f"data: {self.root or 'built-in'}, layout {self.layout}"
        lines = []
        for name in SPLITS:
            split = self.splits[name]
            masks = f", {len(split.masks):,d} of them with true masks" if self.held_out else ""
            lines.append(f"{name:5s} {len(split):7,d} pictures: {self.origins[name]}{masks}")
        return "\n".join([head, *lines, *self.notes])


def read_weak(
    root: str | Path | None,
    layout: str = "auto",
    *,
    labels: str | None = None,
    domain: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
) -> WeakData:
    """Read pictures with image labels, and the masks that the layout has.

    The pictures, their splits and their image labels are those of a multi-label classification.
    Masks are for scores alone, and any of them may be missing.

    Args:
        root: folder or file; None for the built-in scenes.
        layout: name of the layout, or ``auto`` to look.
        labels: which labels, where the layout has several sets of them.
        domain: which domain, where the layout has several; None: its first.
        val_fraction: share of the training pictures for validation where no part is given.
        test_fraction: share for testing where the layout has only one folder of pictures.
        split_seed: of those two draws.

    Raises:
        FileNotFoundError, ValueError: as of :func:`foveal.data.classification.read_classification`
            and :func:`foveal.data.segmentation.read_segmentation`; too many classes, or masks with
            classes that the image labels lack.
    """
    if root is None and layout == "auto":
        layout = "scenes"
    options: dict[str, Any] = {
        "labels": labels,
        "domain": domain,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "split_seed": split_seed,
    }
    found = read_classification(root, layout, multi_label=True, **options)
    found.require_training()
    if len(found.classes) > MOST_CLASSES:
        raise ValueError(
            f"{found.root}: has {len(found.classes)} classes, where label maps hold at most "
            f"{MOST_CLASSES} and the background"
        )
    masked = _masks(root, found.layout, options)
    if masked is None:
        return _without_masks(found)
    return _with_masks(found, masked)


def _masks(
    root: str | Path | None, layout: str, options: Mapping[str, Any]
) -> SegmentationData | None:
    """Return the same pictures with masks; None where the layout has none."""
    if LAYOUTS[layout].reader("segment") is None:
        return None
    return read_segmentation(root, layout, **options)


def _without_masks(found: ClassificationData) -> WeakData:
    classes = (BACKGROUND, *found.classes)
    return WeakData(
        layout=found.layout,
        root=found.root,
        classes=classes,
        colors=voc_palette(len(classes)),
        splits={name: WeakPictures(part, {}) for name, part in found.splits.items()},
        held_out={},
        origins=found.origins,
        image_size=found.image_size,
        notes=(*found.notes, "no masks: what is scored by pseudo labels is called pseudo"),
    )


def _with_masks(found: ClassificationData, masked: SegmentationData) -> WeakData:
    """Match both by the pictures' names."""
    table, background = _numbering(found, masked)
    masks: dict[str, tuple[MaskedPictures, int]] = {}
    for part in masked.splits.values():
        renumbered = RenumberedMasks(part, table)
        for index in range(len(part)):
            masks[_key(part.name(index))] = (renumbered, index)
    splits = {name: _matched(part, masks) for name, part in found.splits.items()}
    held_out = {name: _GatheredMasks([*splits[name].masks.values()]) for name in ("val", "test")}
    notes = [*found.notes, *masked.notes]
    if not all(map(len, held_out.values())):
        held_out = {}
        notes.append("no masks of val or of test: what is scored by pseudo labels is called pseudo")
    classes = (background, *found.classes)
    colors = voc_palette(len(classes))
    for index, name in enumerate(classes):
        if name in masked.classes:
            colors[index] = masked.colors[masked.classes.index(name)]
    return WeakData(
        layout=found.layout,
        root=found.root,
        classes=classes,
        colors=colors,
        splits=splits,
        held_out=held_out,
        origins=found.origins,
        image_size=found.image_size,
        notes=tuple(dict.fromkeys(notes)),
    )


def _numbering(found: ClassificationData, masked: SegmentationData) -> tuple[LabelMap, str]:
    """Return what each label of the masks is called here, uint8 [256], and the background's name.

    Raises:
        ValueError: masks of classes that the image labels lack.
    """
    table = np.full(256, IGNORED, np.uint8)
    others = [name for name in masked.classes if name not in found.classes]
    if len(others) > 1:
        raise ValueError(
            f"{found.root}: the masks show {', '.join(map(repr, others))}, and the image labels "
            f"are of {', '.join(map(repr, found.classes))}: all but the background must be the same"
        )
    for label, name in enumerate(masked.classes):
        table[label] = 0 if name in others else found.classes.index(name) + 1
    return table, others[0] if others else BACKGROUND


def _matched(
    pictures: StoredPictures, masks: Mapping[str, tuple[MaskedPictures, int]]
) -> WeakPictures:
    names = (_key(pictures.name(index)) for index in range(len(pictures)))
    return WeakPictures(
        pictures, {index: masks[name] for index, name in enumerate(names) if name in masks}
    )


class _GatheredMasks:
    """Pictures with masks, gathered from several collections.

    Args:
        chosen: collections and indices there.
    """

    def __init__(self, chosen: list[tuple[MaskedPictures, int]]) -> None:
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def load(self, index: int) -> tuple[Image.Image, LabelMap]:
        part, position = self.chosen[index]
        return part.load(position)

    def decode(self, index: int) -> tuple[Image.Image, LabelMap, str, str]:
        part, position = self.chosen[index]
        return part.decode(position)

    def labels(self, index: int) -> LabelMap:
        part, position = self.chosen[index]
        return part.labels(position)

    def probe(self, index: int) -> None:
        part, position = self.chosen[index]
        part.probe(position)

    def size(self, index: int) -> tuple[int, int]:
        part, position = self.chosen[index]
        return part.size(position)

    def name(self, index: int) -> str:
        part, position = self.chosen[index]
        return part.name(position)

    def mask_name(self, index: int) -> str:
        part, position = self.chosen[index]
        return part.mask_name(position)


def _key(name: str) -> str:
    return os.path.abspath(name)
