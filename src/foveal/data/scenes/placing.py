"""Where the items of a scene are: sizes, outlines, overlap; numbers and masks, no colours."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveal.data.scenes import photographs
from foveal.data.scenes.exact import Draws, Floats, ramp
from foveal.data.scenes.photographs import FACTOR, PAD, Photograph

Whole = NDArray[np.signedinteger[Any]]

MIN_VISIBLE = 0.5
"""Share of its mask that every item shows at least."""

SMALLEST, LARGEST = 0.1, 0.9
"""Longer side of an item's box, as a share of the picture's shorter side."""

_ALONE, _MAIN, _OTHER = (0.3, LARGEST), (0.4, 0.8), (SMALLEST, 0.5)
_AREA = 0.4  # at most this share of the main item's area: also where half of it is hidden, the
# main item shows more than any other
_ACCEPTED, _MAIN_INSIDE = 0.6, 0.9  # visible shares that a place drawn at random must leave
_TRIES, _CELLS = 10, 8
_CONTOUR = 116  # level of the mask's map at the contour; a little below half keeps thin straps
_TILT, _SHEAR, _STRETCH = 0.27, 0.12, 0.12  # tangent of half the largest angle; shares


@dataclass
class Item:
    """An item in a scene.

    Attributes:
        fine: its fine class.
        photo: the photograph.
        alpha: how much of a pixel it covers, [h, w] in [0, 1].
        mask: pixels it covers by at least half, bool [h, w].
        area: their number, also where the picture cuts them off.
        grey: its grey level, uint8 values [h, w].
        depth: distance to its outline in the photograph's pixels, at most 8, [h, w].
        rows: row in the photograph of every pixel, [h, w].
        columns: column in the photograph, [h, w].
        scale: picture's pixels per photograph's pixel.
        top: first row of the patch in the picture; may be negative.
        left: first column.
    """

    fine: int
    photo: Photograph
    alpha: Floats
    mask: NDArray[np.bool_]
    area: int
    grey: Floats
    depth: Floats
    rows: Floats
    columns: Floats
    scale: float
    top: int = 0
    left: int = 0

    def windows(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of a picture [height, width] the patch covers, and the patch's part."""
        h, w = self.mask.shape
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
        instances: 0 for the ground, else 1 + index of the visible item, uint8 [H, W].
    """

    items: list[Item]
    order: list[int]
    instances: NDArray[np.uint8]


def place(draws: Draws, split: str, fine: list[int], height: int, width: int) -> Placement:
    """Place the items of a scene, each with at least :data:`MIN_VISIBLE` of its mask visible.

    A place is drawn until all items keep 60 % visible, at most ten times. An item that finds none
    is drawn as small as can be and laid on top of the others, in that one of 8 by 8 cells where it
    hides the least. Hidden shares there are, averaged over the cells, at most 1/64 of each item
    already placed, and so at most 3/64 of any in the best cell: the last three items together hide
    less than a tenth (1/64 + 2/64 + 3/64), which leaves one half.

    Args:
        draws: source of the numbers.
        split: whose photographs are taken.
        fine: fine class of each item, the main one first.
        height: H.
        width: W.
    """
    side = min(height, width)
    placement = Placement([], [], np.zeros((height, width), np.uint8))
    shape = _Shape.draw(draws, split, fine[0])
    low, high = _ALONE if len(fine) == 1 else _MAIN
    main = shape.at(draws.number(low, high) * side)
    for attempt in range(_TRIES + 1):
        overhang = 0.08 if attempt < _TRIES else 0.0
        main.top = _start(draws.number(), height, main.mask.shape[0], overhang)
        main.left = _start(draws.number(), width, main.mask.shape[1], overhang)
        if _inside(main, height, width) >= _MAIN_INSIDE * main.area:
            break
    _add(placement, main, behind=False)
    for number in fine[1:]:
        shape = _Shape.draw(draws, split, number)
        longest = (_AREA * main.area / shape.fill) ** 0.5
        top = max(min(_OTHER[1] * side, longest), SMALLEST * side)
        share = draws.number()
        item = shape.at(SMALLEST * side + (top - SMALLEST * side) * share * share)
        if not _find_place(draws, placement, item):
            item = shape.at(SMALLEST * side)
            _lay_on_top(placement, item)
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
        scale = length / ((abs(a * d - b * c)) ** 0.5)
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
        covered = mask >= _CONTOUR
        sharp = max(1.0, 1.5 * scale) / 255
        return Item(
            fine=self.fine,
            photo=self.photo,
            alpha=ramp((mask - _CONTOUR) * sharp + 0.5),
            mask=covered,
            area=int(np.count_nonzero(covered)),
            grey=grey,
            depth=depth * (1 / 31),
            rows=(rows + 128) * to_photo - (PAD + 0.5),
            columns=(columns + 128) * to_photo - (PAD + 0.5),
            scale=scale,
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


def _inside(item: Item, height: int, width: int) -> int:
    return int(np.count_nonzero(item.mask[item.windows(height, width)[1]]))


def _find_place(draws: Draws, placement: Placement, item: Item) -> bool:
    """Draw places until one leaves enough of every item visible; add the item there."""
    height, width = placement.instances.shape
    main = placement.items[0]
    seen = np.bincount(placement.instances.ravel(), minlength=len(placement.items) + 1)
    for _ in range(_TRIES):
        near = draws.chance(0.6)
        behind = draws.chance(0.3)
        shares = draws.number(), draws.number()
        if near:  # its middle within the main item's box
            item.top = main.top + int(shares[0] * main.mask.shape[0]) - item.mask.shape[0] // 2
            item.left = main.left + int(shares[1] * main.mask.shape[1]) - item.mask.shape[1] // 2
        else:
            item.top = _start(shares[0], height, item.mask.shape[0], 0.25)
            item.left = _start(shares[1], width, item.mask.shape[1], 0.25)
        window, part = item.windows(height, width)
        over = np.bincount(placement.instances[window][item.mask[part]], minlength=len(seen))
        visible = over[0] if behind else over.sum()
        if visible < _ACCEPTED * item.area:
            continue
        if not behind and any(
            seen[k] - over[k] < _ACCEPTED * other.area for k, other in enumerate(placement.items, 1)
        ):
            continue
        _add(placement, item, behind=behind)
        return True
    return False


def _lay_on_top(placement: Placement, item: Item) -> None:
    """Add a small item in the cell where it hides the least of the others' visible shares."""
    height, width = placement.instances.shape
    best, least = (0, 0), float("inf")
    areas = [other.area for other in placement.items]
    for row in range(_CELLS):
        for column in range(_CELLS):
            item.top = (2 * row + 1) * height // (2 * _CELLS) - item.mask.shape[0] // 2
            item.left = (2 * column + 1) * width // (2 * _CELLS) - item.mask.shape[1] // 2
            window, part = item.windows(height, width)
            over = np.bincount(
                placement.instances[window][item.mask[part]], minlength=len(areas) + 1
            )
            hidden = sum(int(over[k]) / area for k, area in enumerate(areas, 1))
            if hidden < least:
                best, least = (item.top, item.left), hidden
    item.top, item.left = best
    _add(placement, item, behind=False)


def _add(placement: Placement, item: Item, *, behind: bool) -> None:
    height, width = placement.instances.shape
    window, part = item.windows(height, width)
    mask = item.mask[part]
    if behind:
        mask = mask & (placement.instances[window] == 0)
    placement.items.append(item)
    number = len(placement.items)
    placement.instances[window][mask] = number
    placement.order.insert(0 if behind else len(placement.order), number - 1)
