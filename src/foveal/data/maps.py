"""Pictures with a map each: how far every pixel is salient, or of an edge or a skeleton.

A map is float32 [H, W] of values in [0, 1]. Where several people drew lines, a pixel's value is the
share of them who marked it; what each of them drew is kept beside it, bool [H, W]. Rows and columns
are those stored in the picture's file; EXIF orientation is not applied, as with masks.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.data.masks import SizesDifferError, WrongLabelsError
from foveal.data.pictures import decode, opened, printable

FloatMap = NDArray[np.float32]

_GREY_DIFFERENCE = 8  # of channels, as JPEG leaves between those of a grey map


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of every pixel of a picture.

    Attributes:
        map: float32 [H, W], values in [0, 1].
        annotations: what each annotator marked, bool [H, W]; of a single map where it is at least
            half.
        kind: how it is stored: Pillow's mode (``L``), or ``5 annotators``.
    """

    map: FloatMap
    annotations: tuple[NDArray[np.bool_], ...]
    kind: str

    @classmethod
    def of_one(cls, values: FloatMap, kind: str) -> "Truth":
        """Return the truth of a single map."""
        return cls(values, (values >= 0.5,), kind)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.map.shape[1], self.map.shape[0]


class MappedPictures(Protocol):
    """The pictures of one split, each with its map for one task."""

    def __len__(self) -> int:
        """Return N."""

    def load(self, index: int) -> tuple[Image.Image, FloatMap]:
        """Return a picture as RGB, and its map, float32 [H, W] in [0, 1].

        Raises:
            DamagedPictureError: either does not open; :class:`SizesDifferError`,
                :class:`WrongLabelsError`: they do not fit.
        """

    def decode(self, index: int) -> tuple[Image.Image, Truth, str]:
        """Return a picture as RGB, all that is known of its pixels, and its mode in the file."""

    def truth(self, index: int) -> Truth:
        """Return what is known of a picture's pixels, without decoding the picture."""

    def annotations(self, index: int) -> list[NDArray[np.bool_]]:
        """Return what each annotator marked, bool [H, W]; one for a single map."""

    def probe(self, index: int) -> tuple[int, int]:
        """Look at both without decoding the picture; return the map's (width, height).

        Raises:
            DamagedPictureError: either does not open, or they do not fit.
        """

    def size(self, index: int) -> tuple[int, int]:
        """Return a picture's (width, height) in pixels without decoding."""

    def name(self, index: int) -> str:
        """Return where a picture is, for messages: a path."""

    def map_name(self, index: int) -> str:
        """Return where its map is, for messages: a path."""


def read_grey(path: str) -> Truth:
    """Return a map that is stored as a picture.

    The brightest value of the file's kind (255, or 65535 with 16 bits) is 1. A file of 8 bits in
    which no value is above 1 holds 0 and 1, not black and nearly black. Of a palette picture the
    colours count, and three equal channels are one.

    Raises:
        DamagedPictureError: it does not open.
        WrongLabelsError: it has colours, transparent pixels, or values without a defined range.
    """
    with opened(path) as stored:
        mode = stored.mode
        if stored.mode == "F" or stored.mode.startswith("I"):
            values, top = np.asarray(stored).astype(np.float64), 1.0 if mode == "F" else 65535.0
        else:
            values, top = _grey(path, stored).astype(np.float64), 255.0
    low, high = values.min(initial=0), values.max(initial=0)
    if not (low >= 0 and high <= top):  # also refuses NaN
        raise WrongLabelsError(
            path, f"has values from {low:g} to {high:g}, where 0 to {top:g} is expected"
        )
    scale = top if high > 1 else 1.0
    return Truth.of_one((values / scale).astype(np.float32), mode)


def size_of_grey(path: str) -> tuple[int, int]:
    """Return (width, height) of such a map from its header."""
    with opened(path) as stored:
        return stored.size


class MapFiles:
    """Pictures and maps in files, opened one pair at a time.

    Maps of public saliency sets are at places one pixel larger or smaller than their picture;
    then the picture is scaled to its map, which so stays as it was made. Any other difference is
    an error.

    Args:
        root: folder that the paths are relative to.
        pairs: paths of picture and map, relative to ``root`` or absolute.
        read: reads a map file; raises :class:`DamagedPictureError`.
        size_of: returns (width, height) of a map file from its header; None: it is read for that.
    """

    def __init__(
        self,
        root: Path,
        pairs: Sequence[tuple[str, str]],
        read: Callable[[str], Truth] = read_grey,
        size_of: Callable[[str], tuple[int, int]] | None = size_of_grey,
    ) -> None:
        self.root = os.fspath(root)
        # Arrays of bytes, not lists of str: those would be copied into every worker process.
        self.paths, self.map_paths = (
            np.array([os.fsencode(pair[k]) for pair in pairs], dtype=np.bytes_) for k in (0, 1)
        )
        self.read, self.size_of = read, size_of

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.paths)

    def load(self, index: int) -> tuple[Image.Image, FloatMap]:
        """Return a picture as RGB, and its map; raises :class:`DamagedPictureError`."""
        image, truth, _ = self.decode(index)
        return image, truth.map

    def decode(self, index: int) -> tuple[Image.Image, Truth, str]:
        """Return a picture as RGB, all that is known of its pixels, and its mode in the file."""
        image, mode = decode(self.name(index), upright=False)
        truth = self.truth(index)
        self._require_near_size(index, image.size, truth.size)
        if image.size != truth.size:
            image = image.resize(truth.size, Image.Resampling.BILINEAR)
        return image, truth, mode

    def truth(self, index: int) -> Truth:
        """Return what is known of a picture's pixels; raises :class:`DamagedPictureError`."""
        return self.read(self.map_name(index))

    def annotations(self, index: int) -> list[NDArray[np.bool_]]:
        """Return what each annotator marked, bool [H, W]."""
        return list(self.truth(index).annotations)

    def probe(self, index: int) -> tuple[int, int]:
        """Compare the sizes of both files, return the map's; raises DamagedPictureError."""
        path = self.map_name(index)
        map_size = self.read(path).size if self.size_of is None else self.size_of(path)
        self._require_near_size(index, self.size(index), map_size)
        return map_size

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) in pixels, from the picture's header."""
        with opened(self.name(index)) as image:
            return image.size

    def name(self, index: int) -> str:
        """Return a picture's path."""
        return os.path.join(self.root, os.fsdecode(bytes(self.paths[index])))

    def map_name(self, index: int) -> str:
        """Return the path of its map."""
        return os.path.join(self.root, os.fsdecode(bytes(self.map_paths[index])))

    def _require_near_size(
        self, index: int, size: tuple[int, int], map_size: tuple[int, int]
    ) -> None:
        if all(abs(a - b) <= 1 for a, b in zip(size, map_size, strict=True)):
            return
        turned = all(abs(a - b) <= 1 for a, b in zip(size, map_size[::-1], strict=True))
        raise SizesDifferError(
            self.name(index),
            f"{size[0]} by {size[1]} pixels, but its map {printable(self.map_name(index))} has "
            f"{map_size[0]} by {map_size[1]}"
            + (" (EXIF orientation is not applied to pictures with maps)" if turned else ""),
        )


class ChosenMaps:
    """Some of the pictures of another collection, which is shared, not copied.

    Args:
        pictures: all of them.
        indices: which, int64 [N].
    """

    def __init__(self, pictures: MappedPictures, indices: NDArray[np.int64]) -> None:
        self.pictures = pictures
        self.indices = indices

    def __len__(self) -> int:
        """Return the number of chosen pictures."""
        return len(self.indices)

    def load(self, index: int) -> tuple[Image.Image, FloatMap]:
        """Return a picture as RGB, and its map; raises :class:`DamagedPictureError`."""
        return self.pictures.load(int(self.indices[index]))

    def decode(self, index: int) -> tuple[Image.Image, Truth, str]:
        """Return a picture as RGB, all that is known of its pixels, and its mode in the file."""
        return self.pictures.decode(int(self.indices[index]))

    def truth(self, index: int) -> Truth:
        """Return what is known of a picture's pixels; raises :class:`DamagedPictureError`."""
        return self.pictures.truth(int(self.indices[index]))

    def annotations(self, index: int) -> list[NDArray[np.bool_]]:
        """Return what each annotator marked, bool [H, W]."""
        return self.pictures.annotations(int(self.indices[index]))

    def probe(self, index: int) -> tuple[int, int]:
        """Look at both without decoding, return the map's size; raises DamagedPictureError."""
        return self.pictures.probe(int(self.indices[index]))

    def size(self, index: int) -> tuple[int, int]:
        """Return a picture's (width, height) in pixels without decoding."""
        return self.pictures.size(int(self.indices[index]))

    def name(self, index: int) -> str:
        """Return where a picture is."""
        return self.pictures.name(int(self.indices[index]))

    def map_name(self, index: int) -> str:
        """Return where its map is."""
        return self.pictures.map_name(int(self.indices[index]))


@dataclass(frozen=True, kw_only=True)
class FoundMaps:
    """What a reader finds under a root, before missing splits are drawn.

    Attributes:
        root: what was read, for messages.
        parts: pictures by split, some of ``train``, ``val`` and ``test``; or ``all`` alone where
            the layout does not divide them.
        origins: for each part one phrase that says what it is: ``folder val/``.
        copies: whether pictures of one file name are changed copies of one picture, so that a draw
            must not divide them.
        image_size: side that networks see unless told otherwise, where the layout suggests one.
        problems: sentences about what must be put right before training.
        notes: sentences about what a reader of results should know.
        ignored: files that were not read.
    """

    root: str
    parts: Mapping[str, MappedPictures]
    origins: Mapping[str, str]
    copies: bool = False
    image_size: int | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def _grey(path: str, stored: Image.Image) -> NDArray[np.uint8]:
    """Return an opened picture of up to 8 bits as one channel."""
    if stored.has_transparency_data:
        pixels = np.asarray(stored.convert("RGBA"))
        if pixels[..., 3].min(initial=255) < 255:
            raise WrongLabelsError(path, "has transparent pixels, where a map has grey ones")
        pixels = pixels[..., :3]
    elif stored.mode in ("1", "L"):
        return np.asarray(stored.convert("L"))
    else:
        pixels = np.asarray(stored.convert("RGB"))
    spread = pixels.max(-1) - pixels.min(-1)
    if spread.max(initial=0) > _GREY_DIFFERENCE:
        raise WrongLabelsError(path, f"has colours (mode {stored.mode}), where a map is grey")
    return np.asarray(pixels[..., 1])
