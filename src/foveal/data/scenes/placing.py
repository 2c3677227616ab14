"""Where the items of a scene are: sizes, outlines, overlap; numbers and masks, no colours."""

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

MIN_VISIBLE = 0.5
"""Share of its mask that every item shows at least."""

SMALLEST, LARGEST = 0.1, 0.9
"""Longer side of an item's box, as a share of the picture's shorter side."""

_ALONE, _MAIN, _OTHER = (0.4, LARGEST), (0.5, 0.85), 0.5
_AREA = 0.4  # at most this share of the main item's area: also where half of it is hidden, the
# main item shows more than any other
_ACCEPTED = 0.7  # visible share that a place drawn at random must leave
_TRIES, _CELLS = 10, 8
_CONTOUR, _FAINT = 116, 90  # levels of the mask's map at the contour, the lower one of small
# items; below one half, so that thin straps stay
_TILT, _SHEAR, _STRETCH = 0.27, 0.12, 0.12  # tangent of half the largest angle; shares


@dataclass
class Item:
    """An item in a scene; its patch is its box and a pixel around it.

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
class Placement:
    """The items of a scene and what of them is visible.

    Attributes:
        items: the main item first.
        order: indices into ``items`` from the farthest to the nearest.
        visible: 0 for the ground, else 1 + index of the visible item, uint8 [2, H, W]; in the
            second map only where the item's detail is.
    """

    items: list[Item]
    order: list[int]
    visible: NDArray[np.uint8]

    @property
    def instances(self) -> NDArray[np.uint8]:
        """The first map, uint8 [H, W]."""
        instances: NDArray[np.uint8] = self.visible[0]
        return instances


def place(draws: Draws, split: str, fine: list[int], height: int, width: int) -> Placement:
    """Place the items of a scene: half of each item, and half of its detail, stay visible.

    Places are drawn until 70 % of every item and of every detail are visible. An item that finds
    none, nor at a smaller size, is drawn as small as can be and laid on top of the others, in that
    one of 8 by 8 cells where it hides the least. The share that it would hide of an item or detail
    is at most 1/64 on average over the cells; in the best cell, with k items lying there already,
    it is at most 2k/64 of any. So three such items hide at most 2/64 + 4/64 + 6/64 < 20 %.

    Args:
        draws: source of the numbers.
        split: whose photographs are taken.
        fine: fine class of each item, the main one first.
        height: H.
        width: W.
    """
    side = min(height, width)
    placement = Placement([], [], np.zeros((2, height, width), np.uint8))
    shape = _Shape.draw(draws, split, fine[0])
    low, high = _ALONE if len(fine) == 1 else _MAIN
    main = shape.at(draws.number(low, high) * side)
    for attempt in range(_TRIES + 1):
        overhang = 0.08 if attempt < _TRIES else 0.0
        main.top = _start(draws.number(), height, main.size[0], overhang)
        main.left = _start(draws.number(), width, main.size[1], overhang)
        if _leaves_enough(placement, main, behind=True):
            break
    _add(placement, main, behind=True)
    for number in fine[1:]:
        shape = _Shape.draw(draws, split, number)
        smallest = SMALLEST * side
        longest = max(min(_OTHER * side, math.sqrt(_AREA * main.areas[0] / shape.fill)), smallest)
        share = draws.number()
        share *= 0.5 + 0.5 * share  # small items more often
        for smaller in (1.0, 0.5):
            item = shape.at(smallest + (longest - smallest) * share * smaller)
            if _find_place(draws, placement, item):
                break
        else:
            _lay_on_top(placement, shape.at(smallest))
    return placement


@dataclass(frozen=True)
class _Shape:
    """A photograph turned, sheared, stretched and mirrored, at no size yet.

    ``matrix`` takes offsets (row, column) in the item, 1 long side to the unit, to the
    photograph's pixels; ``centre`` is the photograph's place at the middle of the box, ``ratio``
    the box's (height, width), the longer 1; ``fill`` the mask's area by the square of that.
    """

    fine: int
    photo: Photograph
    matrix: tuple[tuple[float, float], tuple[float, float]]
    centre: tuple[float, float]
    ratio: tuple[float, float]
    fill: float

    @classmethod
    def draw(cls, draws: Draws, split: str, fine: int) -> "_Shape":
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
        h, w = (int(length * ratio) + 3 for ratio in self.ratio)
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


def _start(share: float, length: int, extent: int, overhang: float) -> int:
    """Return the first row or column of a patch that may leave the picture a little."""
    beyond = overhang * extent
    room = length - extent + 2 * beyond
    return int(share * room - beyond + 0.5) if room > 0 else (length - extent) // 2


def _find_place(draws: Draws, placement: Placement, item: Item) -> bool:
    """Draw places until one leaves enough of every item visible; add the item there."""
    height, width = placement.instances.shape
    main = placement.items[0]
    for _ in range(_TRIES):
        near, behind = draws.chance(0.6), draws.chance(0.3)
        down, right = draws.number(), draws.number()
        if near:  # its middle within the main item's box
            item.top = main.top + int(down * main.size[0]) - item.size[0] // 2
            item.left = main.left + int(right * main.size[1]) - item.size[1] // 2
        else:
            item.top = _start(down, height, item.size[0], 0.25)
            item.left = _start(right, width, item.size[1], 0.25)
        if _leaves_enough(placement, item, behind=behind):
            _add(placement, item, behind=behind)
            return True
    return False


def _leaves_enough(placement: Placement, item: Item, *, behind: bool) -> bool:
    """Return whether an item at its place, and those there before, stay visible enough."""
    height, width = placement.instances.shape
    window, part = item.windows(height, width)
    for layer in (0, 1):
        shown = item.covers[layer][part]
        if behind:
            shown = shown & (placement.instances[window] == 0)
        if np.count_nonzero(shown) < _ACCEPTED * item.areas[layer]:
            return False
    if behind:
        return True
    hidden = _hidden(placement, item)
    for layer in (0, 1):
        seen = np.bincount(placement.visible[layer].ravel(), minlength=len(placement.items) + 1)
        for k, other in enumerate(placement.items):
            if seen[k + 1] - hidden[layer][k + 1] < _ACCEPTED * other.areas[layer]:
                return False
    return True


def _hidden(placement: Placement, item: Item) -> list[NDArray[np.int64]]:
    """Return the visible pixels of each item, and of each detail, that an item on top hides."""
    window, part = item.windows(*placement.instances.shape)
    mask, numbers = item.covers[0][part], len(placement.items) + 1
    return [np.bincount(layer[window][mask], minlength=numbers) for layer in placement.visible]


def _lay_on_top(placement: Placement, item: Item) -> None:
    """Add a small item in the cell where it hides the least of the others and their details."""
    height, width = placement.instances.shape
    best, least = (0, 0), float("inf")
    for row in range(_CELLS):
        for column in range(_CELLS):
            item.top = (2 * row + 1) * height // (2 * _CELLS) - item.size[0] // 2
            item.left = (2 * column + 1) * width // (2 * _CELLS) - item.size[1] // 2
            total = 0.0
            for layer, hidden in enumerate(_hidden(placement, item)):
                for k, other in enumerate(placement.items):
                    total += int(hidden[k + 1]) / max(other.areas[layer], 1)
            if total < least:
                best, least = (item.top, item.left), total
    item.top, item.left = best
    _add(placement, item, behind=False)


def _add(placement: Placement, item: Item, *, behind: bool) -> None:
    height, width = placement.instances.shape
    window, part = item.windows(height, width)
    covered, marked = item.covers[0][part], item.covers[1][part]
    if behind:
        free = placement.instances[window] == 0
        covered, marked = covered & free, marked & free
    placement.items.append(item)
    number = len(placement.items)
    placement.instances[window][covered] = number
    placement.visible[1][window][covered] = 0
    placement.visible[1][window][marked] = number
    placement.order.insert(0 if behind else len(placement.order), number - 1)
