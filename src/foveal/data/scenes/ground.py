"""Textured grounds and the clutter on them: all that is no clothing."""

from collections.abc import Callable

import numpy as np

from foveal.data.scenes.colours import draw_colour, near
from foveal.data.scenes.exact import Draws, Floats, ease, fractal_noise, ramp, smooth_noise, wave


def draw_ground(draws: Draws, height: int, width: int) -> tuple[Floats, Floats]:
    """Return a ground [3, H, W] with values about [0, 1], and its middle colour [3]."""
    base = draw_colour(draws, (0.15, 0.85))
    other = near(draws, base, draws.number(0.12, 0.4))
    pattern = _KINDS[draws.integer(len(_KINDS))](draws, height, width)
    canvas = base[:, None, None] + (other - base)[:, None, None] * pattern
    _add_clutter(draws, canvas, base)
    return canvas, (base + other) * 0.5


def _axes(draws: Draws, height: int, width: int) -> tuple[Floats, Floats]:
    """Return rows [H, 1] and columns [1, W] as shares of the shorter side, from a random corner."""
    side = min(height, width)
    rows = ((np.arange(height) + 0.5) / side + draws.number(0, 8)).astype(np.float32)
    columns = ((np.arange(width) + 0.5) / side + draws.number(0, 8)).astype(np.float32)
    return rows[:, None], columns[None, :]


def _plaster(draws: Draws, height: int, width: int) -> Floats:
    return fractal_noise(draws, height, width, 2 + draws.integer(8), 4)


def _marble(draws: Draws, height: int, width: int) -> Floats:
    noise = fractal_noise(draws, height, width, 2 + draws.integer(2), 4)
    veins = wave(noise * draws.number(2, 5))
    pattern: Floats = veins * veins * 0.7 + noise * 0.3
    return pattern


def _planks(draws: Draws, height: int, width: int) -> Floats:
    upright = draws.chance(0.5)
    if upright:
        height, width = width, height
    rows, _ = _axes(draws, height, width)
    place = rows * draws.number(3, 8)
    board = np.floor(place).astype(np.int64)
    tones = draws.bytes(256).astype(np.float32) * (1 / 255)
    streaks = smooth_noise(draws, height, width, height // 3, 3)
    fine = smooth_noise(draws, height, width, height // 2, 12)
    joint = ramp((place - np.floor(place)) * 12)
    boards = tones[board & 255] * 0.6 + streaks * 0.3
    pattern: Floats = (boards + fine * 0.25) * joint
    return pattern.T if upright else pattern


def _bricks(draws: Draws, height: int, width: int) -> Floats:
    rows, columns = _axes(draws, height, width)
    size = draws.number(4, 9)
    course = rows * size
    number = np.floor(course).astype(np.int64)
    along = columns * (size / draws.number(1, 2.4)) + (number & 1).astype(np.float32) * 0.5
    brick = np.floor(along).astype(np.int64)
    tones = draws.bytes(1024).astype(np.float32) * (1 / 255)
    tone = tones[(number * 37 + brick * 101) & 1023]
    seam = draws.number(0.05, 0.12)
    edge = np.minimum(
        ramp((course - np.floor(course) - seam) * 20), ramp((along - np.floor(along) - seam) * 20)
    )
    rough = fractal_noise(draws, height, width, 12, 2)
    pattern: Floats = (tone * 0.5 + rough * 0.5) * edge
    return pattern


def _tiles(draws: Draws, height: int, width: int) -> Floats:
    rows, columns = _axes(draws, height, width)
    size = draws.number(2.5, 6)
    y, x = rows * size, columns * size
    if draws.chance(0.4):
        y, x = (y + x) * 0.7, (y - x) * 0.7
    parity = ((np.floor(y) + np.floor(x)).astype(np.int64) & 1).astype(np.float32)
    seam = np.minimum(ramp(wave(y) * 14 - 0.3), ramp(wave(x) * 14 - 0.3))
    stone = fractal_noise(draws, height, width, 5, 3)
    pattern: Floats = (parity * draws.number(0.2, 0.7) + stone * 0.5) * seam
    return pattern


def _grass(draws: Draws, height: int, width: int) -> Floats:
    blades = smooth_noise(draws, height, width, height // 7, width // 2)
    patches = fractal_noise(draws, height, width, 3, 2)
    leaning = smooth_noise(draws, height, width, height // 5, width // 3)
    pattern: Floats = blades * 0.6 + leaning * 0.4 + patches * 0.5 - 0.25
    return pattern


def _cloth(draws: Draws, height: int, width: int) -> Floats:
    rows, columns = _axes(draws, height, width)
    bands = draws.number(3, 8)
    cut = draws.number(0.3, 0.7)
    across = ramp((wave(rows * bands) - cut) * 8)
    along = ramp((wave(columns * bands) - cut) * 8)
    folds = smooth_noise(draws, height, width, 2 + draws.integer(4), 2 + draws.integer(4))
    weave = smooth_noise(draws, height, width, height // 2, width // 2)
    plaid = (across + along) * draws.number(0, 0.5)
    pattern: Floats = plaid + folds * 0.3 + weave * 0.3
    return pattern


def _gradient(draws: Draws, height: int, width: int) -> Floats:
    noise = smooth_noise(draws, height, width, 1 + draws.integer(2), 1 + draws.integer(2))
    grain = draws.bytes(height, width).astype(np.float32) * (0.1 / 255)
    return noise * 1.2 + grain


def _pebbles(draws: Draws, height: int, width: int) -> Floats:
    cells = 8 + draws.integer(10)
    noise = smooth_noise(draws, height, width, cells, cells)
    other = smooth_noise(draws, height, width, cells, cells)
    return ease((noise - 0.35) * 4) * (0.5 + other * 0.5)


_KINDS: tuple[Callable[[Draws, int, int], Floats], ...] = (
    _plaster,
    _marble,
    _planks,
    _bricks,
    _tiles,
    _grass,
    _cloth,
    _gradient,
    _pebbles,
)


def _add_clutter(draws: Draws, canvas: Floats, base: Floats) -> None:
    """Draw discs, rings, bars, boxes and triangles on a ground, some of them patterned."""
    height, width = canvas.shape[1:]
    side = min(height, width)
    for _ in range(draws.integer(8)):
        share = draws.number()
        radius = side * (0.03 + 0.19 * share * share)
        middle_y, middle_x = draws.number(0, height), draws.number(0, width)
        y0, y1 = max(int(middle_y - radius - 1), 0), min(int(middle_y + radius + 2), height)
        x0, x1 = max(int(middle_x - radius - 1), 0), min(int(middle_x + radius + 2), width)
        y = ((np.arange(y0, y1) + 0.5 - middle_y) / radius).astype(np.float32)[:, None]
        x = ((np.arange(x0, x1) + 0.5 - middle_x) / radius).astype(np.float32)[None, :]
        half = draws.number(-0.9, 0.9)
        cosine = (1 - half * half) / (1 + half * half)
        sine = 2 * half / (1 + half * half)
        y, x = y * cosine - x * sine, y * sine + x * cosine
        alpha = ramp(_SHAPES[draws.integer(len(_SHAPES))](y, x) * radius + 0.5)
        colour = near(draws, base, 0.3) if draws.chance(0.4) else draw_colour(draws)
        tone = 1 - draws.number(0, 0.4) * y
        if draws.chance(0.35):
            bands = draws.number(1, 2.5)
            pattern = wave(y * bands) if draws.chance(0.5) else wave(y * bands) * wave(x * bands)
            tone = tone * (1 - 0.5 * ramp(pattern * 6 - 2))
        target = canvas[:, y0:y1, x0:x1]
        target += alpha * (colour[:, None, None] * tone - target)


def _disc(y: Floats, x: Floats) -> Floats:
    return 1 - np.sqrt(y * y + x * x)


def _ring(y: Floats, x: Floats) -> Floats:
    return 0.22 - np.abs(np.sqrt(y * y + x * x) - 0.75)


def _bar(y: Floats, x: Floats) -> Floats:
    return np.minimum(0.16 - np.abs(y), 0.95 - np.abs(x))


def _box(y: Floats, x: Floats) -> Floats:
    return np.minimum(0.6 - np.abs(y), 0.7 - np.abs(x))


def _triangle(y: Floats, x: Floats) -> Floats:
    inside: Floats = np.minimum(0.5 - y, (1 + y) * 0.45 - np.abs(x))
    return inside


_SHAPES: tuple[Callable[[Floats, Floats], Floats], ...] = (_disc, _ring, _bar, _box, _triangle)
