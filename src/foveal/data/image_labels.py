"""Which classes a picture shows, of data that were made for other tasks: multi-label targets."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.data.masks import IGNORED, FoundMasks, MaskedPictures
from foveal.data.parts import Found, with_targets
from foveal.data.pictures import DamagedPictureError

BACKGROUND = "background"


class MaskedPicturesLabels:
    """Pictures with masks, as pictures with the classes that are in the masks.

    Args:
        pictures: of one split.
        targets: float32 [N, K].
    """

    def __init__(self, pictures: MaskedPictures, targets: NDArray[np.float32]) -> None:
        self.pictures, self.targets = pictures, targets

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pictures)

    def load(self, index: int) -> Image.Image:
        """Return a picture as RGB; raises :class:`DamagedPictureError`."""
        return self.pictures.load(index)[0]

    def decode(self, index: int) -> tuple[Image.Image, str]:
        """Return a picture as RGB, and its mode in the file."""
        image, _, mode, _ = self.pictures.decode(index)
        return image, mode

    def probe(self, index: int) -> None:
        """Look at a picture without decoding it; raises :class:`DamagedPictureError`."""
        self.pictures.probe(index)

    def name(self, index: int) -> str:
        """Return where a picture is."""
        return self.pictures.name(index)


def in_masks(read: Callable[..., FoundMasks]) -> Callable[..., Found]:
    """Return a reader of the classes in masks, made of a reader of the masks.

    It opens every mask once. Ignored pixels count for nothing, and a first class called
    ``background`` is none.

    Args:
        read: the reader of a segmentation layout.
    """

    def read_classes(root: Path, **options: Any) -> Found:
        found = read(root, **options)
        first = int(found.classes[:1] == (BACKGROUND,))
        problems = list(found.problems)
        parts = {
            split: MaskedPicturesLabels(
                pictures, _shown(pictures, len(found.classes), problems)[:, first:]
            )
            for split, pictures in found.parts.items()
        }
        return Found(
            root=found.root,
            classes=found.classes[first:],
            parts=parts,
            origins={
                s: f"{origin}, the classes in its masks" for s, origin in found.origins.items()
            },
            image_size=found.image_size,
            multi_label=True,
            problems=tuple(problems),
            notes=found.notes,
            ignored=found.ignored,
        )

    return read_classes


def one_each(found: Found) -> Found:
    """Return pictures of one class each as pictures that may show several: one-hot targets."""
    hot = np.eye(len(found.classes), dtype=np.float32)
    parts = {split: with_targets(p, hot[p.targets]) for split, p in found.parts.items()}
    return dataclasses.replace(found, parts=parts, multi_label=True)


def _shown(pictures: MaskedPictures, classes: int, problems: list[str]) -> NDArray[np.float32]:
    """Return 1 for each class that a mask has, float32 [N, K]; masks that fail are problems."""
    targets = np.zeros((len(pictures), classes), np.float32)
    for index in range(len(pictures)):
        try:
            labels = np.unique(pictures.labels(index))
        except DamagedPictureError as error:
            problems.append(str(error))
        else:
            targets[index, labels[labels != IGNORED]] = 1
    return targets
