"""The photographs that items are made of: which serve which split, and their masks."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from foveal.data import fashion
from foveal.data.idx import FASHION_CLASSES
from foveal.data.parts import PictureArray
from foveal.data.scenes.exact import WHOLE, Floats, enlarging

SIDE = 28
PAD = 4  # empty pixels around a photograph: also the coarsest map has one of them around the item
FACTOR = 4  # how much finer the stored maps are than the photograph
FIELD = (SIDE + 2 * PAD) * FACTOR

# The background of a photograph is 0, but compression left specks of up to a few grey levels.
_SPECK = 8
_SMALLEST, _LARGEST, _DARKEST = 135, 640, 45  # photographs taken: pixels of clothing, mean grey
_LEAST_COVER = 80  # of a pixel at the outline, of 255; darker ones are covered in part
_CRUMB = 8  # pixels: smaller parts are left out
_HOLE = 9  # pixels: smaller holes are closed where one may look through, others everywhere else
_OPEN = frozenset(FASHION_CLASSES.index(name) for name in ("Pullover", "Coat", "Sandal", "Bag"))
_VALIDATION = 5  # one photograph in so many of the training part is for validation scenes


@dataclass(frozen=True)
class Photograph:
    """One item of clothing.

    Attributes:
        mask: where it is, bool [28, 28].
        cover: share of each pixel that it covers, 0 to 255, uint8 [28, 28].
        grey: its grey levels, a little sharpened, uint8 [28, 28].
        depth: distance to the outside in pixels (chessboard), uint8 [28, 28].
    """

    mask: NDArray[np.bool_]
    cover: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    depth: NDArray[np.uint8]

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """First and last row, first and last column of the mask."""
        rows, columns = np.nonzero(self.mask)
        return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())

    def field(self) -> NDArray[np.int64]:
        """Return three maps, four times finer and smooth, in one: int64 [FIELD, FIELD].

        Bits 0–7 are the mask (0 to 255; the contour is at half), 16–23 the grey level, continued
        over the contour, 32–39 the depth, at most 8, times 31.
        """
        padded = np.zeros((4, SIDE + 2 * PAD, SIDE + 2 * PAD), np.float32)
        inside = padded[:, PAD:-PAD, PAD:-PAD]
        inside[0] = self.cover
        inside[1] = self.mask
        np.multiply(self.grey, self.mask, out=inside[2])
        np.multiply(np.minimum(self.depth, 8), 31, out=inside[3])
        weights = enlarging(SIDE + 2 * PAD, FACTOR)
        cover, mask, grey, depth = weights @ padded @ weights.T
        grey = np.minimum(grey / np.maximum(mask, 1), 255)
        scale = 1 / WHOLE**2
        packed: NDArray[np.int64] = (
            (cover * scale).astype(np.int64)
            | grey.astype(np.int64) << 16
            | (depth * scale).astype(np.int64) << 32
        )
        return packed


@lru_cache(maxsize=1)
def _parts() -> dict[str, tuple[PictureArray, tuple[NDArray[np.int64], ...]]]:
    """Return for each split the pictures and, for each class, the rows that serve it."""
    found = fashion.read().parts
    parts = {}
    for split, source in (("train", "train"), ("val", "train"), ("test", "test")):
        pictures = found[source]
        assert isinstance(pictures, PictureArray)
        shown = pictures.pixels > _SPECK
        count = shown.sum(axis=(1, 2))
        total = (pictures.pixels * shown).sum(axis=(1, 2), dtype=np.int64)
        good = (count >= _SMALLEST) & (count <= _LARGEST) & (total >= _DARKEST * count)
        if source == "train":
            is_validation = np.arange(len(pictures)) % _VALIDATION == 0
            good &= is_validation if split == "val" else ~is_validation
        rows = tuple(np.flatnonzero(good & (pictures.targets == k)) for k in range(10))
        parts[split] = pictures, rows
    return parts


def rows(split: str, category: int) -> NDArray[np.int64]:
    """Return the rows of the built-in Fashion-MNIST part that serve a split and class."""
    return _parts()[split][1][category]


@lru_cache(maxsize=4096)
def photograph(split: str, category: int, number: int) -> Photograph:
    """Return one of the photographs that :func:`rows` lists, by its place there."""
    pictures, by_class = _parts()[split]
    grey = pictures.pixels[by_class[category][number]]
    return _photograph(grey, _HOLE if category in _OPEN else SIDE * SIDE)


def _photograph(grey: NDArray[np.uint8], hole: int) -> Photograph:
    from scipy import ndimage  # here, since whoever reads a folder of pictures needs none of it

    mask = grey > _SPECK
    parts, _ = ndimage.label(mask, np.ones((3, 3), bool))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    mask = (sizes >= min(_CRUMB, sizes.max()))[parts]
    holes, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    sizes = np.bincount(holes.ravel())
    sizes[0] = sizes[holes[0, 0]] = hole + 1
    mask = mask | (sizes <= hole)[holes][1:-1, 1:-1]
    depth = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    brightest = ndimage.maximum_filter(grey, 3)
    share = np.clip(grey.astype(np.int64) * 330 // np.maximum(brightest, 1), _LEAST_COVER, 255)
    cover = np.where(depth > 1, 255, share * mask).astype(np.uint8)
    return Photograph(mask, cover, _sharpened(grey, mask), depth.astype(np.uint8))


def _sharpened(grey: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return grey levels drawn away from the mean of their neighbours within the item."""
    own = grey.astype(np.int64)
    around = np.zeros_like(own)
    for axis in (0, 1):
        for step in (-1, 1):
            neighbour = np.roll(own, step, axis)  # what comes round at the edges is background
            around += np.where(np.roll(mask, step, axis), neighbour, own)
    return np.clip(own + (4 * own - around) // 4, 0, 255).astype(np.uint8)


def grey_range(photo: Photograph) -> tuple[int, int]:
    """Return the grey levels below and above which a tenth of the item lies."""
    counts = np.cumsum(np.bincount(photo.grey[photo.mask], minlength=256))
    low, high = np.searchsorted(counts, [counts[-1] // 10, counts[-1] * 9 // 10])
    return int(low), int(high)


def widest_place(photo: Photograph) -> tuple[int, int, int]:
    """Return row, column and depth of the pixel farthest from the outside, the middle one."""
    places, columns = np.nonzero(photo.depth == photo.depth.max())
    middle = np.abs(2 * places - places.min() - places.max()) + np.abs(
        2 * columns - columns.min() - columns.max()
    )
    nearest = int(np.argmin(middle))
    return int(places[nearest]), int(columns[nearest]), int(photo.depth.max())


def outline(photo: Photograph) -> tuple[Floats, Floats]:
    """Return rows and columns of all pixels of the item, float32 [N] each."""
    places = np.nonzero(photo.mask)
    return places[0].astype(np.float32), places[1].astype(np.float32)
