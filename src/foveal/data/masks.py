"""Pictures with a label map each: which class every pixel shows, in files of its own.

A label map is uint8 [H, W]: class indices, and 255 (:data:`IGNORED`) where nothing is to be
learned or scored. Rows and columns are those stored in the picture's file; EXIF orientation is not
applied, because masks are drawn on the stored pixels.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.data.pictures import DamagedPictureError, decode, opened, printable

IGNORED = 255

LabelMap = NDArray[np.uint8]

_ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B")
_MOST_VALUES = 6  # wrong values that a message lists


class SizesDifferError(DamagedPictureError):
    """A picture and its mask are not of the same size."""


class WrongLabelsError(DamagedPictureError):
    """A mask whose values are no classes, or that is not a mask at all."""


class MaskedPictures(Protocol):
    """The pictures of one split, each with its label map."""

    def __len__(self) -> int:
        """Return N."""

    def load(self, index: int) -> tuple[Image.Image, LabelMap]:
        """Return a picture as RGB, and its label map, uint8 [H, W].

        Raises:
            DamagedPictureError: either does not open; :class:`SizesDifferError`,
                :class:`WrongLabelsError`: they do not fit.
        """

    def decode(self, index: int) -> tuple[Image.Image, LabelMap, str, str]:
        """Return what :meth:`load` does, and the modes of both files (``RGB``, ``P``)."""

    def labels(self, index: int) -> LabelMap:
        """Return a label map, uint8 [H, W], without decoding the picture.

        Raises:
            DamagedPictureError: as :meth:`load`, but for damage behind the picture's header.
        """

    def probe(self, index: int) -> None:
        """Look at both without decoding; raises :class:`DamagedPictureError`."""

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) in pixels without decoding."""

    def name(self, index: int) -> str:
        """Return where a picture is, for messages: a path."""

    def mask_name(self, index: int) -> str:
        """Return where its mask is, for messages: a path."""


def label_table(values: Sequence[int], ignored: Iterable[int] = ()) -> NDArray[np.int16]:
    """Return what each value of a mask means: a class index, 255 or (no such value) -1, [256].

    Args:
        values: of the classes, in their order.
        ignored: further values that are ignored, beside 255.

    Example:
        >>> camvid = label_table(range(11), ignored=[11])
        >>> [int(camvid[value]) for value in (10, 11, 12, 255)]
        [10, 255, -1, 255]
    """
    table = np.full(256, -1, np.int16)
    table[[*ignored, IGNORED]] = IGNORED
    table[list(values)] = np.arange(len(values))
    return table


def decode_mask(path: str | os.PathLike[str]) -> tuple[LabelMap, str]:
    """Return the values of a mask file as they are stored, uint8 [H, W], and Pillow's mode.

    Of a palette picture the indices are taken, not the colours.

    Raises:
        DamagedPictureError: it does not open.
        WrongLabelsError: it has colours instead of classes, is a JPEG, or has values above 255.
    """
    with opened(path) as stored:
        if stored.mode not in _ONE_CHANNEL:
            raise WrongLabelsError(
                path,
                f"has colours (mode {stored.mode}), where a mask has one channel of class numbers, "
                "grey or with a palette",
            )
        if stored.format == "JPEG":
            raise WrongLabelsError(
                path, "a JPEG, which blurs class numbers: a mask must be stored without loss (PNG)"
            )
        values = np.array(stored)  # never convert(): that would turn indices into colours
        mode = stored.mode
    if values.max(initial=0) > IGNORED or values.min(initial=0) < 0:
        raise WrongLabelsError(
            path, f"has values from {values.min()} to {values.max()}, where 0 to 255 is expected"
        )
    return values.astype(np.uint8), mode


class MaskFiles:
    """Pictures and masks in files, opened one pair at a time.

    Args:
        root: folder that the paths are relative to.
        pairs: paths of picture and mask, relative to ``root`` or absolute.
        table: what the values in the masks mean, as of :func:`label_table`.
    """

    def __init__(
        self, root: Path, pairs: Sequence[tuple[str, str]], table: NDArray[np.int16]
    ) -> None:
        self.root = os.fspath(root)
        # Arrays of bytes, not lists of str: those would be copied into every worker process.
        self.paths, self.mask_paths = (
            np.array([os.fsencode(pair[k]) for pair in pairs], dtype=np.bytes_) for k in (0, 1)
        )
        self.table = table

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.paths)

    def load(self, index: int) -> tuple[Image.Image, LabelMap]:
        """Return a picture as RGB, and its label map; raises :class:`DamagedPictureError`."""
        return self.decode(index)[:2]

    def decode(self, index: int) -> tuple[Image.Image, LabelMap, str, str]:
        """Return picture, label map, and the modes of both files."""
        image, mode = decode(self.name(index), upright=False)
        labels, mask_mode = self._labels(index, image.size)
        return image, labels, mode, mask_mode

    def labels(self, index: int) -> LabelMap:
        """Return a label map; raises :class:`DamagedPictureError`."""
        return self._labels(index, self.size(index))[0]

    def _labels(self, index: int, size: tuple[int, int]) -> tuple[LabelMap, str]:
        """Return the label map of a picture of this size, and its file's mode."""
        values, mode = decode_mask(self.mask_name(index))
        self._require_same_size(index, size, (values.shape[1], values.shape[0]))
        labels = self.table[values]
        if labels.min(initial=0) < 0:
            raise WrongLabelsError(self.mask_name(index), self._wrong_values(values[labels < 0]))
        return labels.astype(np.uint8), mode

    def probe(self, index: int) -> None:
        """Read the headers of both files; raises :class:`DamagedPictureError`."""
        with opened(self.mask_name(index)) as mask:
            mask_size = mask.size
        self._require_same_size(index, self.size(index), mask_size)

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) in pixels, from the picture's header."""
        with opened(self.name(index)) as image:
            return image.size

    def name(self, index: int) -> str:
        """Return a picture's path."""
        return os.path.join(self.root, os.fsdecode(bytes(self.paths[index])))

    def mask_name(self, index: int) -> str:
        """Return the path of its mask."""
        return os.path.join(self.root, os.fsdecode(bytes(self.mask_paths[index])))

    def _require_same_size(
        self, index: int, size: tuple[int, int], mask_size: tuple[int, int]
    ) -> None:
        if size == mask_size:
            return
        turned = size == mask_size[::-1]
        raise SizesDifferError(
            self.name(index),
            f"{size[0]} by {size[1]} pixels, but its mask {printable(self.mask_name(index))} has "
            f"{mask_size[0]} by {mask_size[1]}"
            + (" (EXIF orientation is not applied to pictures with masks)" if turned else ""),
        )

    def _wrong_values(self, wrong: NDArray[np.uint8]) -> str:
        found = np.unique(wrong)
        shown = ", ".join(map(str, found[:_MOST_VALUES])) + (", …" if len(found) > 6 else "")
        allowed = np.flatnonzero(self.table >= 0)
        return (
            f"has the value{'s' if len(found) > 1 else ''} {shown} in {len(wrong)} pixels, where "
            f"{_ranges(allowed)} are expected"
        )


class ChosenMasks:
    """Some of the pictures of another collection, which is shared, not copied.

    Args:
        pictures: all of them.
        indices: which, int64 [N].
    """

    def __init__(self, pictures: MaskedPictures, indices: NDArray[np.int64]) -> None:
        self.pictures = pictures
        self.indices = indices

    def __len__(self) -> int:
        """Return the number of chosen pictures."""
        return len(self.indices)

    def load(self, index: int) -> tuple[Image.Image, LabelMap]:
        """Return a picture as RGB, and its label map; raises :class:`DamagedPictureError`."""
        return self.decode(index)[:2]

    def decode(self, index: int) -> tuple[Image.Image, LabelMap, str, str]:
        """Return picture, label map, and the modes of both files."""
        return self.pictures.decode(int(self.indices[index]))

    def labels(self, index: int) -> LabelMap:
        """Return a label map; raises :class:`DamagedPictureError`."""
        return self.pictures.labels(int(self.indices[index]))

    def probe(self, index: int) -> None:
        """Look at both without decoding; raises :class:`DamagedPictureError`."""
        self.pictures.probe(int(self.indices[index]))

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) in pixels without decoding."""
        return self.pictures.size(int(self.indices[index]))

    def name(self, index: int) -> str:
        """Return where a picture is."""
        return self.pictures.name(int(self.indices[index]))

    def mask_name(self, index: int) -> str:
        """Return where its mask is."""
        return self.pictures.mask_name(int(self.indices[index]))


class RenumberedMasks(ChosenMasks):
    """Pictures whose labels are looked up in a table.

    Args:
        pictures: all of them.
        table: the new label of each, uint8 [256].
    """

    def __init__(self, pictures: MaskedPictures, table: NDArray[np.uint8]) -> None:
        super().__init__(pictures, np.arange(len(pictures)))
        self.table = table

    def decode(self, index: int) -> tuple[Image.Image, LabelMap, str, str]:
        """Return picture, label map, and the modes of both files."""
        image, labels, mode, mask_mode = super().decode(index)
        return image, self.table[labels], mode, mask_mode

    def labels(self, index: int) -> LabelMap:
        """Return a label map; raises :class:`DamagedPictureError`."""
        return self.table[super().labels(index)]


@dataclass(frozen=True, kw_only=True)
class FoundMasks:
    """What a reader finds under a root, before missing splits are drawn.

    Attributes:
        root: what was read, for messages.
        classes: class names; a label is an index into them.
        colors: of the classes, uint8 [K, 3].
        parts: pictures by split, some of ``train``, ``val`` and ``test``; or ``all`` alone where
            the layout does not divide them.
        origins: for each part one phrase that says what it is: ``folder val/``.
        image_size: side that networks see unless told otherwise, where the layout suggests one.
        pseudo: splits whose masks are pseudo labels, not the truth.
        problems: sentences about what must be put right before training.
        notes: sentences about what a reader of results should know.
        ignored: files that were not read.
    """

    root: str
    classes: tuple[str, ...]
    colors: NDArray[np.uint8]
    parts: Mapping[str, MaskedPictures]
    origins: Mapping[str, str]
    image_size: int | None = None
    pseudo: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def _ranges(values: NDArray[np.int64]) -> str:
    """Return sorted numbers in words: ``0 to 10 and 255``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
