"""Labelled pictures in files and in arrays, and what a reader of a layout finds."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.data.pictures import decode, probe


class Pictures(Protocol):
    """The labelled pictures of one split.

    Attributes:
        targets: class indices, int64 [N]; multi-label: float32 [N, K] of 0 and 1.
    """

    targets: NDArray[Any]

    def __len__(self) -> int:
        """Return N."""

    def load(self, index: int) -> Image.Image:
        """Return a picture as RGB; raises :class:`DamagedPictureError`."""

    def name(self, index: int) -> str:
        """Return where a picture is, for messages: a path, or ``path[row]``."""


class StoredPictures(Pictures, Protocol):
    """Pictures that also tell how they are stored."""

    def decode(self, index: int) -> tuple[Image.Image, str]:
        """Return a picture as RGB, and its mode in the file (``RGB``, ``L``, ``P, animated``)."""

    def probe(self, index: int) -> None:
        """Look at a picture without decoding it; raises :class:`DamagedPictureError`."""


class PictureFiles:
    """Pictures in files, opened one at a time.

    Args:
        root: folder that the paths are relative to.
        paths: one for each picture, relative to ``root`` or absolute.
        targets: as in :class:`Pictures`.
        upright: whether a picture is turned as its EXIF orientation says.
    """

    def __init__(
        self, root: Path, paths: Sequence[str], targets: NDArray[Any], *, upright: bool = True
    ) -> None:
        self.root = os.fspath(root)
        # One array of bytes: a million str objects would be copied into every worker process as
        # their reference counts are touched.
        self.paths = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)
        self.targets = targets
        self.upright = upright

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths)

    def load(self, index: int) -> Image.Image:
        """Return a picture as RGB; raises :class:`DamagedPictureError`."""
        return self.decode(index)[0]

    def decode(self, index: int) -> tuple[Image.Image, str]:
        """Return a picture as RGB, and its mode in the file."""
        return decode(self.name(index), upright=self.upright)

    def probe(self, index: int) -> None:
        """Read a picture's header; raises :class:`DamagedPictureError`."""
        probe(self.name(index))

    def name(self, index: int) -> str:
        """Return a picture's path."""
        return os.path.join(self.root, os.fsdecode(bytes(self.paths[index])))


class PictureArray:
    """Pictures in memory, as they lay in array files.

    Args:
        pixels: uint8, grey [N, H, W] or RGB [N, H, W, 3].
        targets: int64 [N].
        sources: the files in order, each with its number of pictures.
    """

    def __init__(
        self, pixels: NDArray[np.uint8], targets: NDArray[Any], sources: Sequence[tuple[str, int]]
    ) -> None:
        self.pixels = pixels
        self.targets = targets
        self.sources = tuple(sources)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pixels)

    def load(self, index: int) -> Image.Image:
        """Return a picture as RGB."""
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def decode(self, index: int) -> tuple[Image.Image, str]:
        """Return a picture as RGB, and its mode in the file."""
        return self.load(index), "L" if self.pixels.ndim == 3 else "RGB"

    def probe(self, index: int) -> None:
        """Do nothing: the pixels are in memory already."""

    def name(self, index: int) -> str:
        """Return a picture's file and row, such as ``data_batch_1[17]``."""
        row = range(len(self))[index]
        for path, count in self.sources:
            if row < count:
                return f"{path}[{row}]"
            row -= count
        raise IndexError(f"no picture {index} among {len(self)}")


class ChosenPictures:
    """Some of the pictures of another collection, which is shared, not copied.

    Args:
        pictures: all of them.
        indices: which, int64 [N].
    """

    def __init__(self, pictures: StoredPictures, indices: NDArray[np.int64]) -> None:
        self.pictures = pictures
        self.indices = indices
        self.targets = pictures.targets[indices]

    def __len__(self) -> int:
        """Return the number of chosen pictures."""
        return len(self.indices)

    def load(self, index: int) -> Image.Image:
        """Return a picture as RGB; raises :class:`DamagedPictureError`."""
        return self.pictures.load(int(self.indices[index]))

    def decode(self, index: int) -> tuple[Image.Image, str]:
        """Return a picture as RGB, and its mode in the file."""
        return self.pictures.decode(int(self.indices[index]))

    def probe(self, index: int) -> None:
        """Look at a picture without decoding it; raises :class:`DamagedPictureError`."""
        self.pictures.probe(int(self.indices[index]))

    def name(self, index: int) -> str:
        """Return where a picture is."""
        return self.pictures.name(int(self.indices[index]))


def with_targets(pictures: StoredPictures, targets: NDArray[Any]) -> StoredPictures:
    """Return the same pictures under other labels, as in :class:`Pictures`."""
    relabelled = ChosenPictures(pictures, np.arange(len(pictures)))
    relabelled.targets = targets
    return relabelled


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a reader finds under a root, before missing splits are drawn.

    Attributes:
        root: what was read, for messages.
        classes: class names; a target is an index into them.
        parts: pictures by split, some of ``train``, ``val`` and ``test``; or ``all`` alone where
            the layout does not divide them.
        origins: for each part one phrase that says what it is: ``folder val/``.
        image_size: side that networks see unless told otherwise, pixels, where the layout suggests
            one: the pictures' own, or of scenes, whose sides differ, their middle.
        multi_label: whether targets are float32 [N, K].
        problems: sentences about what must be put right before training.
        notes: sentences about what a reader of results should know.
        ignored: files that were not read.
    """

    root: str
    classes: tuple[str, ...]
    parts: Mapping[str, StoredPictures]
    origins: Mapping[str, str]
    image_size: int | None = None
    multi_label: bool = False
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
