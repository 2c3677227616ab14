"""The colours of an item: its parts, its cloth, and the detail that makes its fine class."""

import numpy as np

from foveal.data.scenes.colours import contrasting, draw_colour, near
from foveal.data.scenes.exact import Draws, Floats, ease, ramp, wave
from foveal.data.scenes.items import Item
from foveal.data.scenes.photographs import grey_range

_HIDDEN = 0.3  # share of the other items whose colour is close to the ground's


def paint_item(draws: Draws, item: Item, ground: Floats, *, main: bool) -> Floats:
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
    low, high = grey_range(item.surface.photo)
    tone = ramp((item.grey - low) * (1 / (high - low + 40)))
    part = ease((tone - 0.3) * 2.5)
    relief = 0.6 + 0.55 * tone + _cloth(draws, item)
    colours = dark[:, None, None] + (light - dark)[:, None, None] * part
    colours += item.detail * (mark[:, None, None] - colours)
    colours *= relief
    colours *= 0.8 + 0.2 * ramp(item.surface.depth * 0.3)  # rounded: darker towards the outline
    return colours


def _cloth(draws: Draws, item: Item) -> Floats:
    """Return a fine texture about 0, turned and scaled with the item."""
    strength = draws.number(0.03, 0.16)
    rows, columns = item.surface.rows, item.surface.columns
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
