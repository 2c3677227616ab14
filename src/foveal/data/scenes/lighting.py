"""Light and shadow over a whole scene."""

import numpy as np
from numpy.typing import NDArray

from foveal.data.scenes.exact import Draws, Floats, blur, ease


def cast_shadow(draws: Draws, canvas: Floats, alpha: NDArray[np.uint8], reach: float) -> None:
    """Darken a canvas [3, H, W] beside an item.

    Args:
        draws: source of the numbers.
        canvas: what is darkened.
        alpha: the item's cover, uint8 [H, W].
        reach: how far the shadow falls, pixels.
    """
    down, right = int(draws.number(0.3, 1) * reach), int(draws.number(-1, 1) * reach)
    height, width = alpha.shape
    shifted = np.zeros((height, width), np.float32)
    source = alpha[: height - down, max(0, -right) : width - max(0, right)]
    shifted[down:, max(0, right) : width - max(0, -right)] = source
    soft = blur(shifted, 1 + int(reach * draws.number(0.4, 1)))
    canvas *= 1 - soft * (draws.number(0.25, 0.6) / 255)


def light(draws: Draws, canvas: Floats) -> None:
    """Light a canvas [3, H, W]: a gradient, perhaps a spot, perhaps the edge of a shadow."""
    height, width = canvas.shape[1:]
    y = ((np.arange(height) + 0.5) / height - 0.5).astype(np.float32)[:, None]
    x = ((np.arange(width) + 0.5) / width - 0.5).astype(np.float32)[None, :]
    slope_y, slope_x = draws.number(-0.5, 0.5), draws.number(-0.5, 0.5)
    strength = 1 + y * slope_y + x * slope_x
    if draws.chance(0.35):
        dy, dx = y - draws.number(-0.4, 0.4), x - draws.number(-0.4, 0.4)
        narrow = draws.number(3, 9)
        floor = draws.number(0.45, 0.7)
        strength = strength * (floor + (1.15 - floor) / (1 + (dy * dy + dx * dx) * narrow))
    if draws.chance(0.35):
        a, b = draws.number(-1, 1), draws.number(-1, 1)
        across = y * a + x * b - draws.number(-0.25, 0.25)
        edge = ease(across * draws.number(6, 40) + 0.5)
        strength = strength * (1 - draws.number(0.25, 0.5) * edge)
    tint = np.array([draws.number(0.92, 1.08) for _ in range(3)], np.float32)
    canvas *= strength * tint[:, None, None]
