"""The same scene in other worlds: as a sketch, by night, through a bad camera."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foveal.data.scenes.exact import Draws, Floats, blur, ease, fractal_noise, ramp, smooth_noise

Instances = NDArray[np.uint8]


def _grain(draws: Draws, *shape: int) -> Floats:
    """Return noise about 0 within (-1, 1), of a triangular density."""
    pair = draws.bytes(2, *shape).astype(np.float32)
    noise: Floats = (pair[0] - pair[1]) * (1 / 255)
    return noise


def _clean(draws: Draws, canvas: Floats, instances: Instances) -> Floats:
    return canvas + _grain(draws, *canvas.shape) * 0.025


def _sketch(draws: Draws, canvas: Floats, instances: Instances) -> Floats:
    """Draw outlines and hatch the dark parts, in pencil or ink on paper or in chalk on a board."""
    height, width = instances.shape
    grey = canvas[0] * 0.3 + canvas[1] * 0.6 + canvas[2] * 0.1
    smooth = blur(np.floor(ramp(grey) * 255), 1) * (1 / 255)
    down, right = np.zeros_like(smooth), np.zeros_like(smooth)
    down[1:-1] = smooth[2:] - smooth[:-2]
    right[:, 1:-1] = smooth[:, 2:] - smooth[:, :-2]
    # Lines where the tone changes, of items and of all else alike, with gaps where the hand is
    # lifted; the outlines of items also where they hardly differ from what is behind them.
    lines = ramp((np.sqrt(down * down + right * right) - 0.07) * draws.number(4, 9))
    outline = np.zeros((height, width), np.float32)
    outline[1:] = instances[1:] != instances[:-1]
    outline[:, 1:] = np.maximum(outline[:, 1:], instances[:, 1:] != instances[:, :-1])
    lines = np.maximum(lines, outline * draws.number(0.45, 0.95))
    lines *= ramp(fractal_noise(draws, height, width, 5, 2) * 3.5 - draws.number(0.1, 0.6))
    # Hatching: strokes that sway, crossed where the tone is darkest.
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    sway = smooth_noise(draws, height, width, 5, 5) * 9
    slope, spacing = draws.number(0.4, 2.2), 1 / draws.number(3.2, 6.5)
    tone = smooth + draws.number(-0.12, 0.2)
    first = _strokes((x * slope + y + sway) * spacing) * ease((0.62 - tone) * 4)
    second = _strokes((x - y * slope + sway) * spacing) * ease((0.36 - tone) * 5)
    ink = np.maximum(lines, np.maximum(first, second) * draws.number(0.55, 0.9))
    chalk = draws.chance(0.35)
    level = draws.number(0.08, 0.3) if chalk else draws.number(0.8, 0.96)
    sheet = level + _grain(draws, height, width) * 0.05
    sheet = sheet - smooth_noise(draws, height, width, 3, 3) * 0.07
    tint = np.array([draws.number(0.85, 1.1) for _ in range(3)], np.float32)[:, None, None]
    sheet = sheet * tint
    low, high = (0.7, 1.0) if chalk else (0.02, 0.35)
    pen = np.array([draws.number(low, high) for _ in range(3)], np.float32)[:, None, None]
    drawn: Floats = sheet + ramp(ink) * (pen - sheet)
    return drawn


def _strokes(phase: Floats) -> Floats:
    t = phase - np.floor(phase)
    return ramp((0.24 - np.abs(t - 0.5)) * 6)


def _night(draws: Draws, canvas: Floats, instances: Instances) -> Floats:
    """Take nearly all light away, let lamps shine, add the noise of a sensor in the dark."""
    height, width = instances.shape
    grey = (canvas[0] + canvas[1] + canvas[2]) * (1 / 3)
    flat = draws.number(0.3, 0.6)
    dull = canvas + (grey - canvas) * flat
    moon = np.array([0.55, 0.72, 1.0], np.float32)[:, None, None]
    light = moon * draws.number(0.18, 0.36)
    y = ((np.arange(height) + 0.5) / height).astype(np.float32)[:, None]
    x = ((np.arange(width) + 0.5) / width).astype(np.float32)[None, :]
    for _ in range(draws.integer(4)):
        dy, dx = y - draws.number(-0.2, 1.2), x - draws.number(-0.2, 1.2)
        falloff = 1 / (1 + (dy * dy + dx * dx) * draws.number(12, 40))
        lamp = np.array([1, draws.number(0.6, 0.85), draws.number(0.25, 0.5)], np.float32)
        light = light + lamp[:, None, None] * (falloff * draws.number(0.25, 0.7))
    dark = ramp(dull) * light + 0.03 * moon
    noise = _grain(draws, 3, height, width) * draws.number(0.04, 0.09)
    exposed: Floats = dark + noise * (0.6 + dark)
    return exposed


def _noisy(draws: Draws, canvas: Floats, instances: Instances) -> Floats:
    """Spoil the picture two or three times: blur, fog, coarse blocks, noise, lost pixels."""
    height, width = instances.shape
    spoilt = canvas
    if draws.chance(0.45):
        levels = np.floor(ramp(spoilt) * 255)
        spoilt = blur(levels, 1 + draws.integer(3)) * (1 / 255)
    if draws.chance(0.45):
        fog = ramp(fractal_noise(draws, height, width, 2, 3) + draws.number(-0.1, 0.3))
        fog = fog * draws.number(0.4, 0.85)
        spoilt = spoilt + fog * (draws.number(0.6, 0.9) - spoilt)
    if draws.chance(0.5):
        spoilt = _coarse(spoilt, 3 + draws.integer(3), draws.number(0.5, 0.85))
    strength = draws.number(0.1, 0.34)
    coloured = draws.chance(0.6)
    spoilt = spoilt + _grain(draws, 3 if coloured else 1, height, width) * strength
    if draws.chance(0.4):
        lost = draws.bytes(height, width)
        share = 2 + draws.integer(12)
        spoilt = np.where(lost < share, 0, spoilt)
        spoilt = np.where(lost > 255 - share, 1, spoilt)
    return spoilt


def _coarse(canvas: Floats, size: int, share: float) -> Floats:
    """Mix a canvas with blocks of one colour and few levels each, as of strong compression."""
    height, width = canvas.shape[1:]
    rows = np.arange(height) // size * size + size // 2
    columns = np.arange(width) // size * size + size // 2
    rows, columns = np.minimum(rows, height - 1), np.minimum(columns, width - 1)
    blocks = canvas[:, rows[:, None], columns[None, :]]
    blocks = np.floor(ramp(blocks) * 12) * (1 / 12)
    mixed: Floats = canvas + (blocks - canvas) * share
    return mixed


DOMAINS: dict[str, Callable[[Draws, Floats, Instances], Floats]] = {
    "clean": _clean,
    "sketch": _sketch,
    "night": _night,
    "noisy": _noisy,
}
"""Name of a domain -> what it makes of a lit canvas [3, H, W]; the labels stay as they are."""
