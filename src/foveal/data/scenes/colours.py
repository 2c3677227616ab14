"""Colours, drawn without regard to what they are for, so that none tells a class."""

import numpy as np

from foveal.data.scenes.exact import Draws, Floats

_RED, _GREEN, _BLUE = 0.3, 0.6, 0.1


def lightness(colour: Floats) -> float:
    """Return how light a colour [3] looks, in [0, 1]."""
    return _RED * float(colour[0]) + _GREEN * float(colour[1]) + _BLUE * float(colour[2])


def difference(one: Floats, other: Floats) -> float:
    """Return how far two colours are apart: lightness counts most, then the channels."""
    channels = sum(abs(float(a) - float(b)) for a, b in zip(one, other, strict=True)) / 3
    return 0.7 * abs(lightness(one) - lightness(other)) + 0.5 * channels


def draw_colour(draws: Draws, light: tuple[float, float] = (0.12, 0.92)) -> Floats:
    """Return a colour [3] in [0, 1] of any hue, dull ones more often, of a lightness in a range."""
    hue, vivid, wanted = draws.number(0, 6), draws.number(), draws.number(*light)
    chroma = 0.65 * vivid * vivid
    sector, t = int(hue), hue - int(hue)
    rising = (1, t, 0), (1 - t, 1, 0), (0, 1, t), (0, 1 - t, 1), (t, 0, 1), (1, 0, 1 - t)
    order = rising[sector]
    red, green, blue = (chroma * (share - 0.5) for share in order)
    lift = wanted - (_RED * red + _GREEN * green + _BLUE * blue)
    values = [min(max(value + lift, 0.02), 0.98) for value in (red, green, blue)]
    return np.array(values, np.float32)


def contrasting(draws: Draws, *others: Floats, least: float = 0.25) -> Floats:
    """Return a colour at least so different from the others, or the most different of eight."""
    best, most = draw_colour(draws), -1.0
    for _ in range(8):
        colour = draw_colour(draws, (0.05, 0.97))
        apart = min(difference(colour, other) for other in others)
        if apart > most:
            best, most = colour, apart
        if apart >= least:
            break
    return best


def near(draws: Draws, colour: Floats, reach: float) -> Floats:
    """Return a colour that differs by at most ``reach`` in each channel."""
    shifts = [draws.number(-reach, reach) for _ in range(3)]
    shifted: Floats = np.clip(colour + np.array(shifts, np.float32), 0.02, 0.98)
    return shifted
