"""Items of clothing: the mask and grey levels of a photograph at any size and angle."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveal.data.scenes import photographs
from foveal.data.scenes.details import DETAILS, Surface, draw_detail
from foveal.data.scenes.exact import Draws, Floats, ramp
from foveal.data.scenes.photographs import FACTOR, PAD, Photograph

Whole = NDArray[np.signedinteger[Any]]

_CONTOUR, _FAINT = 116, 90  # levels of the mask's map at the contour, the lower one of small
# items; below one half, so that thin straps stay
_TILT, _SHEAR, _STRETCH = 0.27, 0.12, 0.12  # tangent of half the largest angle; shares


@dataclass
class Item:
    """An item in a scene; its patch is its box and two pixels around it.

    Attributes:
        fine: its fine class.
        surface: its pixels on the photograph.
        scale: picture's pixels per photograph's pixel.
        alpha: how much of a pixel it covers, [h, w] in [0, 1].
        grey: its grey level, 0 to 255, [h, w].
        detail: how much of a pixel the detail of its fine class covers, [h, w] in [0, 1].
        covers: pixels that it covers by at least half, and those of them that its detail does,
            bool [2, h, w].
        areas: their numbers, also where the picture cuts them off.
        top: first row of the patch in the picture; may be negative.
        left: first column.
    """

    fine: int
    surface: Surface
    scale: float
    alpha: Floats
    grey: Floats
    detail: Floats
    covers: NDArray[np.bool_]
    areas: tuple[int, int]
    top: int = 0
    left: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the patch."""
        height, width = self.alpha.shape
        return height, width

    def windows(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of a picture [height, width] the patch covers, and the patch's part."""
        h, w = self.size
        y0, y1 = max(self.top, 0), min(self.top + h, height)
        x0, x1 = max(self.left, 0), min(self.left + w, width)
        return (
            (slice(y0, y1), slice(x0, x1)),
            (slice(y0 - self.top, y1 - self.top), slice(x0 - self.left, x1 - self.left)),
        )


@dataclass(frozen=True)
class Shape:
    """A photograph turned, sheared, stretched and mirrored, at no size yet.

    Attributes:
        fine: the fine class.
        photo: the photograph.
        matrix: takes offsets (row, column) in the item, as shares of its box's longer side, to the
            photograph's pixels.
        centre: place on the photograph, row and column, at the middle of the box.
        ratio: height and width of the box, the longer 1.
        fill: the mask's area as a share of the square over the longer side.
    """

    fine: int
    photo: Photograph
    matrix: tuple[tuple[float, float], tuple[float, float]]
    centre: tuple[float, float]
    ratio: tuple[float, float]
    fill: float

    @classmethod
    def draw(cls, draws: Draws, split: str, fine: int) -> "Shape":
        """Draw one of a split's photographs of a fine class, and how it lies."""
        category = fine // 10
        number = draws.integer(len(photographs.rows(split, category)))
        photo = photographs.photograph(split, category, number)
        half = draws.number(-_TILT, _TILT)
        cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
        shear = draws.number(-_SHEAR, _SHEAR)
        stretch = draws.number(1 - _STRETCH, 1 + _STRETCH)
        mirror = -1.0 if draws.chance(0.5) else 1.0
        # forward: photograph's (row, column) to the picture's
        a, b = cosine, -sine * stretch * mirror
        c, d = sine + shear * cosine, (cosine - shear * sine) * stretch * mirror
        y, x = photographs.outline(photo)
        rows, columns = y * a + x * b, y * c + x * d
        low_y, high_y = float(rows.min()), float(rows.max())
        low_x, high_x = float(columns.min()), float(columns.max())
        tall, wide = high_y - low_y + 1, high_x - low_x + 1
        longer = max(tall, wide)
        determinant = a * d - b * c
        inverse = (d / determinant, -b / determinant), (-c / determinant, a / determinant)
        middle_y, middle_x = (low_y + high_y) / 2, (low_x + high_x) / 2
        return cls(
            fine=fine,
            photo=photo,
            matrix=(
                (inverse[0][0] * longer, inverse[0][1] * longer),
                (inverse[1][0] * longer, inverse[1][1] * longer),
            ),
            centre=(
                inverse[0][0] * middle_y + inverse[0][1] * middle_x,
                inverse[1][0] * middle_y + inverse[1][1] * middle_x,
            ),
            ratio=(tall / longer, wide / longer),
            fill=len(y) * abs(determinant) / (longer * longer),
        )

    def at(self, length: float) -> Item:
        """Return the item with a box whose longer side is ``length`` pixels."""
        h, w = (int(length * ratio) + 5 for ratio in self.ratio)
        (a, b), (c, d) = self.matrix
        y: Floats = (np.arange(h) + 0.5 - h / 2) / length
        x: Floats = (np.arange(w) + 0.5 - w / 2) / length
        scale = length / math.sqrt(abs(a * d - b * c))
        field, finer = self.photo.field(), float(FACTOR)
        while finer * 0.7 > scale:  # several of the finer pixels to one of the picture's
            field, finer = _halved(field), finer / 2
        # Places in the field in 1/256 of its pixels: whole numbers from here on.
        unit = 256 * finer
        start = [(middle + PAD + 0.5) * unit - 128 for middle in self.centre]
        rows = _whole(y * (a * unit) + start[0])[:, None] + _whole(x * (b * unit))
        columns = _whole(y * (c * unit) + start[1])[:, None] + _whole(x * (d * unit))
        mask, grey, depth = _sample(field, rows, columns)
        to_photo = 1 / unit
        surface = Surface(
            photo=self.photo,
            rows=((rows + 128) * to_photo - (PAD + 0.5)).astype(np.float32),
            columns=((columns + 128) * to_photo - (PAD + 0.5)).astype(np.float32),
            depth=depth * (1 / 31),
        )
        detail = draw_detail(self.fine % len(DETAILS), surface, scale)
        contour = min(_CONTOUR if scale > 0.7 else _FAINT, float(mask.max()))  # never nothing
        covered = mask >= contour
        covers = np.stack([covered, covered & (detail >= 0.5)])
        sharp = max(0.5 / contour, 1.5 / 255 * scale)  # an edge of a pixel; 0 stays 0
        return Item(
            fine=self.fine,
            surface=surface,
            scale=scale,
            alpha=ramp((mask - contour) * sharp + 0.5),
            grey=grey,
            detail=detail,
            covers=covers,
            areas=(int(np.count_nonzero(covers[0])), int(np.count_nonzero(covers[1]))),
        )


def _whole(values: Floats) -> Whole:
    return np.floor(values).astype(np.int32)


def _halved(field: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return means of two by two pixels, for each of the maps packed in a field."""
    total = field[::2, ::2] + field[1::2, ::2] + field[::2, 1::2] + field[1::2, 1::2]
    return (total >> 2) & 0x00FF00FF00FF


def _sample(field: NDArray[np.int64], rows: Whole, columns: Whole) -> tuple[Floats, Floats, Floats]:
    """Return the three maps, values to 255, at places given in 1/256 pixels (bilinear to 1/8)."""
    side = len(field)
    y, x = np.clip(rows, 0, (side - 1) * 256 - 1), np.clip(columns, 0, (side - 1) * 256 - 1)
    index = (y >> 8) * side + (x >> 8)
    down, right = (y >> 5) & 7, (x >> 5) & 7
    flat = field.ravel()
    above = flat.take(index) * (8 - right) + flat.take(index + 1) * right
    index += side
    below = flat.take(index) * (8 - right) + flat.take(index + 1) * right
    packed = above * (8 - down) + below * down
    share = 1 / 64
    mask, grey, depth = ((packed >> shift & 0xFFFF).astype(np.float32) for shift in (0, 16, 32))
    return mask * share, grey * share, depth * share
