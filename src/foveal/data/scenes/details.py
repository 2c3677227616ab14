"""The ten details: each coarse class comes in ten fine ones that differ in one of these alone."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from foveal.data.scenes.exact import Floats, ramp, wave
from foveal.data.scenes.photographs import Photograph, widest_place


@dataclass(frozen=True)
class Surface:
    """An item's pixels as places on its photograph; lengths are in the photograph's pixels.

    Attributes:
        photo: the photograph.
        rows: row of every pixel, [h, w].
        columns: column of every pixel, [h, w].
        depth: distance to the outline, at most 8, [h, w].
    """

    photo: Photograph
    rows: Floats
    columns: Floats
    depth: Floats

    def about_middle(self) -> tuple[Floats, Floats]:
        """Return rows and columns from the middle of the item's box."""
        top, bottom, left, right = self.photo.box
        return self.rows - (top + bottom) / 2, self.columns - (left + right) / 2

    def about_widest(self) -> tuple[Floats, Floats, float]:
        """Return rows and columns from where the item is widest, and a radius that fits there."""
        row, column, depth = widest_place(self.photo)
        return self.rows - row, self.columns - column, min(max(depth, 3.0), 4.8)


def _plain(surface: Surface) -> Floats:
    return np.full_like(surface.rows, -1)


def _stripes(surface: Surface) -> Floats:
    y, _ = surface.about_middle()
    inside: Floats = (0.5 - wave(y * (1 / 5.5))) * 2.75
    return inside


def _dots(surface: Surface) -> Floats:
    y, x = surface.about_middle()
    down, right = wave(y * (1 / 5.5)) * 2.75, wave(x * (1 / 5.5)) * 2.75
    inside: Floats = 1.45 - np.sqrt(down * down + right * right)
    return inside


def _checks(surface: Surface) -> Floats:
    y, x = surface.about_middle()
    down, right = (wave(y * (1 / 8)) - 0.5) * 4, (wave(x * (1 / 8)) - 0.5) * 4
    inside: Floats = np.minimum(np.abs(down), np.abs(right)) * np.sign(down) * np.sign(right)
    return inside


def _sash(surface: Surface) -> Floats:
    y, x, _ = surface.about_widest()
    inside: Floats = 1.8 - np.abs(y + x) * 0.7
    return inside


def _disc(surface: Surface) -> Floats:
    y, x, radius = surface.about_widest()
    return radius - np.sqrt(y * y + x * x)


def _ring(surface: Surface) -> Floats:
    y, x, radius = surface.about_widest()
    inside: Floats = radius * 0.24 - np.abs(np.sqrt(y * y + x * x) - radius * 0.76)
    return inside


def _cross(surface: Surface) -> Floats:
    y, x, radius = surface.about_widest()
    y, x = np.abs(y), np.abs(x)
    return np.minimum(radius * 0.3 - np.minimum(y, x), radius - np.maximum(y, x))


def _border(surface: Surface) -> Floats:
    _, _, depth = widest_place(surface.photo)
    return min(1.9, 0.2 + 0.5 * depth) - surface.depth  # narrower where straps are narrow


def _hem(surface: Surface) -> Floats:
    top, bottom, _, _ = surface.photo.box
    return surface.rows - (bottom - 0.3 * (bottom - top))


DETAILS: dict[str, Callable[[Surface], Floats]] = {
    "plain": _plain,
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "sash": _sash,
    "disc": _disc,
    "ring": _ring,
    "cross": _cross,
    "border": _border,
    "hem": _hem,
}
"""Name of a detail -> signed distance to its edge, positive inside."""


def draw_detail(number: int, surface: Surface, scale: float) -> Floats:
    """Return how much of each pixel of an item a detail covers, [h, w] in [0, 1].

    Args:
        number: of the detail.
        surface: the item's pixels.
        scale: picture's pixels per photograph's pixel.
    """
    distance = list(DETAILS.values())[number](surface)
    return ramp(distance * scale + 0.5)
