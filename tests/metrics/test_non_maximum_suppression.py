"""Ridges of known place and direction, and Dollár's rule written out pixel by pixel."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.morphology import thin

from foveal.metrics import suppress_non_maxima
from foveal.metrics.non_maximum_suppression import ridge_normal

SIDE = 61


def ridge(degrees, offset=0.0, sigma=2.0):
    """Return a straight ridge through the middle, and the distance of each pixel from it.

    0 degrees is a ridge along the columns' direction (upright): its normal points along the rows.
    """
    angle = math.radians(degrees)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    distance = x * math.cos(angle) + y * math.sin(angle) - offset
    return 0.9 * np.exp(-(distance**2) / (2 * sigma**2)), distance


@pytest.mark.parametrize("degrees", range(0, 180, 5))
def test_a_ridge_keeps_its_crest_and_no_more(degrees):
    values, distance = ridge(degrees, offset=0.2)
    kept = suppress_non_maxima(values)
    inside = np.s_[8:-8, 8:-8]  # neither faded nor touched by the mirrored frame
    crest, d = (kept >= 0.01)[inside], np.abs(distance[inside])  # 0.01: the lowest threshold
    assert (kept[inside][crest] == values[inside][crest]).all()
    assert d[crest].max() < 0.8
    across = 1 if degrees <= 45 or degrees >= 135 else 0  # lines of pixels that cross the ridge
    nearest = d == d.min(across, keepdims=True)
    assert (crest & nearest).any(across).all()
    # Two pixels of a diagonal are as near; thinning, the next step, leaves one of them.
    assert set(crest.sum(across).tolist()) <= {1, 2}
    assert set(thin(crest).sum(across)[2:-2].tolist()) == {1}  # its cut ends are as they are


@pytest.mark.parametrize("degrees", range(-90, 90, 15))
def test_the_normal_of_a_ridge(degrees):
    """Its tangent is the square of the true one's; axes and diagonals are exact."""
    values, distance = ridge(degrees, sigma=4)
    tangent = math.tan(math.radians(degrees))
    expected = math.copysign(math.atan(tangent**2), tangent)
    found = ridge_normal(values)[np.abs(distance) < 1]
    found = found[len(found) // 3 : -(len(found) // 3)]  # far from the frame
    difference = (found - expected + math.pi / 2) % math.pi - math.pi / 2  # normals have no sign
    assert np.abs(difference).max() < math.radians(2)


def test_against_the_rule_pixel_by_pixel():
    rng = np.random.default_rng(0)
    p = gaussian_filter(rng.random((23, 31)), 1.2)
    p = (p - p.min()) / np.ptp(p)
    angle = ridge_normal(p)

    def interpolated(y, x):
        y, x = min(max(y, 0), 22), min(max(x, 0), 30)
        y0, x0 = min(int(y), 21), min(int(x), 29)
        a, b = y - y0, x - x0
        above = (1 - b) * p[y0, x0] + b * p[y0, x0 + 1]
        below = (1 - b) * p[y0 + 1, x0] + b * p[y0 + 1, x0 + 1]
        return (1 - a) * above + a * below

    expected = np.zeros_like(p)
    for (y, x), value in np.ndenumerate(p):
        dy, dx = math.sin(angle[y, x]), math.cos(angle[y, x])
        sides = [interpolated(y + k * dy, x + k * dx) for k in (-2, -1, 1, 2)]
        if value * 1.01 >= max(sides):
            expected[y, x] = value
    fade = lambda n: np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]) / 5, 1)  # noqa: E731
    expected *= fade(23)[:, None] * fade(31)
    found = suppress_non_maxima(p, radius=2)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert 0 < (found > 0).mean() < 0.3


def test_the_frame_fades():
    values = np.tile(np.exp(-(np.arange(-15.0, 16) ** 2) / 8), (31, 1))
    crest = suppress_non_maxima(values)[:, 15]
    np.testing.assert_allclose(crest[:7], [0, 0.2, 0.4, 0.6, 0.8, 1, 1])
    np.testing.assert_allclose(crest[::-1], crest)
    assert (suppress_non_maxima(values, border=0)[:, 15] == 1).all()


def test_a_flat_map_stays():
    """Nothing in it is weaker than its neighbours."""
    kept = suppress_non_maxima(np.full((20, 30), 0.7))
    np.testing.assert_allclose(kept[5:-5, 5:-5], 0.7)
    assert (suppress_non_maxima(np.zeros((20, 30))) == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (5, 5)])
def test_small_maps(shape):
    p = np.random.default_rng(0).random(shape)
    kept = suppress_non_maxima(p)
    assert kept.shape == shape
    assert ((kept >= 0) & (kept <= p)).all()
