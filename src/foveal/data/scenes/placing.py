"""Where the items of a scene are, and which of them hides which."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveal.data.scenes.exact import Draws
from foveal.data.scenes.items import Item, Shape

MIN_VISIBLE = 0.5
"""Share of its mask, and of its detail, that every item shows at least."""

SMALLEST, LARGEST = 0.1, 0.9
"""Longer side of an item's box, as a share of the picture's shorter side."""

_ALONE, _MAIN, _OTHER = (0.4, LARGEST), (0.5, 0.85), 0.5
_AREA = 0.4  # at most this share of the main item's area: also where half of it is hidden, the
# main item shows more than any other
_ACCEPTED = 0.75  # visible share that a place drawn at random must leave
_TRIES, _CELLS = 10, 8


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

    Places are drawn until 75 % of every item and of every detail are visible. An item that finds
    none, nor at a smaller size, is drawn as small as can be and laid on top of the others, in that
    one of 8 by 8 cells where it hides the least. It is as large as a cell at most (in the smallest
    pictures by a pixel more), so the share that it would hide of an item or detail is at most 1/64
    on average over the cells; in the best cell, with k items lying there already, it is at most
    2k/64 of any. So three such items hide at most 2/64 + 4/64 + 6/64, less than 20 % (24 %).

    Args:
        draws: source of the numbers.
        split: whose photographs are taken.
        fine: fine class of each item, the main one first.
        height: H.
        width: W.
    """
    side = min(height, width)
    placement = Placement([], [], np.zeros((2, height, width), np.uint8))
    shape = Shape.draw(draws, split, fine[0])
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
        shape = Shape.draw(draws, split, number)
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
