"""The colours of an item: its parts, its cloth, and the detail that makes its fine class."""

import numpy as np

from foveal.data.scenes.colours import contrasting, draw_colour, near
from foveal.data.scenes.exact import Draws, Floats, ease, ramp, wave
from foveal.data.scenes.photographs import grey_range, widest_place
from foveal.data.scenes.placing import Item
from foveal.data.scenes.plan import DETAILS

_HIDDEN = 0.3  # share of the other items whose colour is close to the ground's


def draw_item(draws: Draws, item: Item, ground: Floats, *, main: bool) -> Floats:
    """Return an item's colours [3, h, w], values about [0, 1].

    The photograph's dark and light parts get colours of their own; the detail's colour differs
    from both.

    Args:
        draws: source of the numbers.
        item: what is drawn.
        ground: the ground's middle colour, [3].
        main: the main item always stands out from the ground; others may come close to it.
    """
    if main or not draws.chance(_HIDDEN):
        light = contrasting(draws, ground, least=0.22)
    else:
        light = near(draws, ground, 0.12)
    dark = near(draws, light, 0.35) if draws.chance(0.6) else draw_colour(draws)
    mark = contrasting(draws, light, dark, least=0.33)
    low, high = grey_range(item.photo)
    tone = ramp((item.grey - low) * (1 / (high - low + 40)))
    part = ease((tone - 0.3) * 2.5)
    relief = 0.72 + 0.4 * tone
    relief = relief + _cloth(draws, item)
    colours = dark[:, None, None] + (light - dark)[:, None, None] * part
    detail = _detail(item)
    if detail is not None:
        colours += detail * (mark[:, None, None] - colours)
    colours *= relief
    # Light from above: what bulges is lighter at the top and darker towards the outline.
    rim = ramp(item.depth * 0.3)
    colours *= 0.8 + 0.2 * rim
    return colours


def _cloth(draws: Draws, item: Item) -> Floats:
    """Return a fine texture about 0, turned and scaled with the item."""
    strength = draws.number(0.03, 0.16)
    rows, columns = item.rows, item.columns
    threads = draws.number(0.6, 1.2) if item.scale > 2 else 0.3
    kind = draws.integer(4)
    if kind == 0:  # ribs
        weave = wave(columns * threads)
    elif kind == 1:  # twill
        weave = wave((rows + columns) * threads)
    elif kind == 2:  # knit
        weave = wave(columns * threads) * wave(rows * threads + wave(columns * threads))
    else:  # leather: grain alone
        weave = np.full_like(rows, 0.5)
    grain = draws.bytes(*rows.shape).astype(np.float32) * (0.5 / 255)
    return (weave + grain - 0.75) * strength


def _detail(item: Item) -> Floats | None:
    """Return where the detail of the fine class covers an item, [h, w] in [0, 1]."""
    name = DETAILS[item.fine % len(DETAILS)]
    if name == "plain":
        return None
    pixel = item.scale  # signed distances below are in the photograph's pixels
    if name == "border":
        return _soft(1.9 - item.depth, pixel)
    places = np.nonzero(item.photo.mask)
    top, bottom = int(places[0].min()), int(places[0].max())
    left, right = int(places[1].min()), int(places[1].max())
    if name == "hem":
        return _soft(item.rows - (bottom - 0.3 * (bottom - top)), pixel)
    y = item.rows - ((top + bottom) / 2)
    x = item.columns - ((left + right) / 2)
    if name == "stripes":
        return _soft((0.5 - wave(y * (1 / 5.5))) * 2.75, pixel)
    if name == "checks":
        across = (wave(y * (1 / 8)) - 0.5) * 4
        along = (wave(x * (1 / 8)) - 0.5) * 4
        sign = np.sign(across) * np.sign(along)
        return _soft(np.minimum(np.abs(across), np.abs(along)) * sign, pixel)
    if name == "dots":
        down = wave(y * (1 / 5.5)) * 2.75
        right_ = wave(x * (1 / 5.5)) * 2.75
        return _soft(1.45 - np.sqrt(down * down + right_ * right_), pixel)
    row, column, depth = widest_place(item.photo)
    y, x = item.rows - row, item.columns - column
    if name == "sash":
        return _soft(1.8 - np.abs(y + x) * 0.7, pixel)
    radius = min(max(depth, 3.2), 5.5)
    away = np.sqrt(y * y + x * x)
    if name == "disc":
        return _soft(radius - away, pixel)
    if name == "ring":
        return _soft(radius * 0.24 - np.abs(away - radius * 0.76), pixel)
    arms = radius * 0.3 - np.minimum(np.abs(y), np.abs(x))
    return _soft(np.minimum(arms, radius - np.maximum(np.abs(y), np.abs(x))), pixel)


def _soft(distance: Floats, pixel: float) -> Floats:
    return ramp(distance * pixel + 0.5)
