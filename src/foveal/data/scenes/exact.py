"""Random numbers and arithmetic that give the same bytes on every machine.

Rules of this package: random numbers come from PCG64's raw stream, which NumPy keeps as it is;
arithmetic is + − × ÷, square root, floor and comparison of single elements, which IEEE 754 rounds
one way everywhere; sums are of whole numbers. NumPy's sin, exp and power, and sums and products of
matrices in general, may differ in the last bit from one processor to the next.

Products of matrices are used all the same, since they are fast, but only of whole numbers whose
sums stay below 2**24: float32 holds each of them exactly, so no order of summation can round.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""float32 wherever pixels are meant."""

SALT = 0x5CE9E5
"""First word of every key."""

WHOLE = 64
"""Sum of the weights of one row of a matrix made here."""


class Draws:
    """A stream of random numbers that depends on a key alone.

    Args:
        *key: whole numbers from 0 on.
    """

    def __init__(self, *key: int) -> None:
        # A seed sequence takes 0, (0,) and (0, 0) for the same; and default_rng(0), with which
        # people shuffle, must not be the stream that put the classes in order.
        sequence = np.random.SeedSequence((SALT, len(key), *key))
        self._raw = np.random.PCG64(sequence).random_raw

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * ((self._raw() >> 11) * 2.0**-53)

    def integer(self, count: int) -> int:
        """Return a whole number in [0, count)."""
        return int(((self._raw() >> 32) * count) >> 32)

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.number() < probability

    def words(self, *shape: int) -> NDArray[np.uint64]:
        """Return random 64-bit words."""
        words: NDArray[np.uint64] = self._raw(int(np.prod(shape))).reshape(shape)
        return words

    def bytes(self, *shape: int) -> NDArray[np.uint8]:
        """Return random bytes."""
        count = int(np.prod(shape))
        words = self._raw(count // 8 + 1).astype("<u8", copy=False)
        return words.view(np.uint8)[:count].reshape(shape)


@lru_cache(maxsize=512)
def smoothing(length: int, cells: int) -> Floats:
    """Return whole weights [length, cells + 3] that draw a smooth curve through cells + 3 numbers.

    A uniform cubic B-spline over ``cells`` intervals; each row sums to :data:`WHOLE`.
    """
    return _spline(length, cells + 3, [(k + 0.5) / length * cells + 1 for k in range(length)])


@lru_cache(maxsize=8)
def enlarging(size: int, factor: int) -> Floats:
    """Return whole weights [size · factor, size] that enlarge smoothly by a whole factor.

    A cubic B-spline, half-pixel centres; rows near the ends sum to less: outside is 0.
    """
    places = [(k + 0.5) / factor - 0.5 for k in range(size * factor)]
    return _spline(size * factor, size, places)


def _spline(length: int, size: int, places: list[float]) -> Floats:
    matrix = np.zeros((length, size), np.float32)
    for row, place in enumerate(places):
        start = int(np.floor(place))
        t = place - start
        shares = [
            (1 - t) * (1 - t) * (1 - t),
            3 * t * t * t - 6 * t * t + 4,
            -3 * t * t * t + 3 * t * t + 3 * t + 1,
            t * t * t,
        ]
        weights = [int(share / 6 * WHOLE + 0.5) for share in shares]
        weights[1 if t < 0.5 else 2] += WHOLE - sum(weights)
        for k, weight in enumerate(weights, start - 1):
            if 0 <= k < size:
                matrix[row, k] += weight
    return matrix


@lru_cache(maxsize=512)
def blurring(length: int, radius: int) -> Floats:
    """Return whole weights [length, length]: a mean over about ``2 · radius + 1`` neighbours.

    The window is a tent, repeats the end values, and each row sums to :data:`WHOLE`.
    """
    reach = range(-radius, radius + 1)
    tent = [radius + 1 - abs(k) for k in reach]
    weights = [w * WHOLE // sum(tent) for w in tent]
    weights[radius] += WHOLE - sum(weights)
    matrix = np.zeros((length, length), np.float32)
    for row in range(length):
        for k, weight in zip(reach, weights, strict=True):
            matrix[row, min(max(row + k, 0), length - 1)] += weight
    return matrix


def blur(values: Floats, radius: int) -> Floats:
    """Blur maps [..., H, W] of whole numbers from 0 to 255; the result has their range."""
    height, width = values.shape[-2:]
    total: Floats = blurring(height, radius) @ values @ blurring(width, radius).T
    return total * (1 / WHOLE**2)


def smooth_noise(draws: Draws, height: int, width: int, cells_y: int, cells_x: int) -> Floats:
    """Return a random smooth map [H, W], mostly within [0, 1], with so many bumps each way."""
    lattice = draws.bytes(cells_y + 3, cells_x + 3).astype(np.float32)
    noise: Floats = smoothing(height, cells_y) @ lattice @ smoothing(width, cells_x).T
    # Splines flatten: without the stretch the values would crowd around the middle.
    return noise * (1.8 / (255 * WHOLE**2)) - 0.4


def fractal_noise(draws: Draws, height: int, width: int, cells: int, octaves: int) -> Floats:
    """Return a random map [H, W] about 0.5 with bumps of several sizes, each half the one before.

    Args:
        draws: source of the numbers.
        height: H.
        width: W.
        cells: bumps of the largest size across the longer side.
        octaves: number of sizes.
    """
    total = np.zeros((height, width), np.float32)
    share = 2 ** (octaves - 1) / (2**octaves - 1)
    longer = max(height, width)
    for _ in range(octaves):
        noise = smooth_noise(draws, height, width, cells * height // longer + 1, cells)
        total += noise * share
        share, cells = share / 2, cells * 2
    return total


def ramp(values: Floats) -> Floats:
    """Clip to [0, 1]: the soft edge of a shape, from signed distances in pixels plus one half."""
    clipped: Floats = np.clip(values, 0, 1)
    return clipped


def ease(values: Floats) -> Floats:
    """Return 3t² − 2t³ of values clipped to [0, 1]."""
    t = ramp(values)
    eased: Floats = t * t * (3 - 2 * t)
    return eased


def wave(values: Floats) -> Floats:
    """Return a triangle wave of period 1 between 0 and 1, 0 at whole numbers."""
    triangle: Floats = 2 * np.abs(values - np.floor(values + 0.5))
    return triangle
