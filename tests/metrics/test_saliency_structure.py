"""The S-measure against its formulas, block by block."""

import numpy as np
import pytest

from foveal.metrics.saliency_pair import SaliencyPair
from foveal.metrics.saliency_structure import s_measure


def structure(p, g):
    """Alpha = 0.5; the parts with NumPy's own means, variances and covariances."""

    def even(values):
        sigma = np.std(values, ddof=1) if len(values) > 1 else 0
        return 2 * values.mean() / (values.mean() ** 2 + 1 + sigma)

    share = g.mean()
    objects = share * even(p[g]) + (1 - share) * even(1 - p[~g])
    rows, columns = np.nonzero(g)
    y, x = round(rows.mean()) + 1, round(columns.mean()) + 1  # Python's round is half to even
    regions = 0
    for bp, bg in zip(
        (p[:y, :x], p[:y, x:], p[y:, :x], p[y:, x:]),
        (g[:y, :x], g[:y, x:], g[y:, :x], g[y:, x:]),
        strict=True,
    ):
        if bp.size == 0:
            continue
        if bp.size == 1:
            regions += 1 / p.size
            continue
        (vx, cxy), (_, vy) = np.cov(bp.ravel(), bg.ravel().astype(float))
        above = 4 * bp.mean() * bg.mean() * cxy
        below = (bp.mean() ** 2 + bg.mean() ** 2) * (vx + vy)
        similarity = above / below if above else float(below == 0)
        regions += bp.size / p.size * similarity
    return max(0.5 * objects + 0.5 * regions, 0)


@pytest.mark.parametrize("seed", range(12))
def test_against_the_formulas(seed):
    rng = np.random.default_rng(seed)
    g = np.zeros((rng.integers(3, 14), rng.integers(3, 14)), bool)
    top, left = rng.integers(0, 3, 2)
    g[top : top + rng.integers(1, 7), left : left + rng.integers(1, 7)] = True
    p = np.clip(0.5 * g + 0.6 * rng.random(g.shape), 0, 1)
    if g.all():
        g[0, 0] = False
    pair = SaliencyPair.of(p, g, min_max=False)
    assert s_measure(pair) == pytest.approx(structure(p, g), rel=1e-11)


def test_the_picture_upside_down_is_no_better():
    g = np.zeros((8, 9), bool)
    g[2:5, 3:7] = True
    assert s_measure(SaliencyPair.of(g, g)) == pytest.approx(1)
    assert s_measure(SaliencyPair.of(~g, g)) == 0  # the sum is negative


@pytest.mark.parametrize("corner", [(0, 0), (0, 4), (3, 0), (3, 4)])
def test_blocks_of_one_pixel_and_of_none(corner):
    g = np.zeros((4, 5), bool)
    g[corner] = True
    p = np.random.default_rng(1).random((4, 5))
    pair = SaliencyPair.of(p, g, min_max=False)
    assert s_measure(pair) == pytest.approx(structure(p, g), rel=1e-11)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_constant_maps(value):
    """Blocks without foreground count 1, as nothing varies; 0.5 has exact means."""
    g = np.zeros((8, 8), bool)
    g[0, 0] = g[6, 6] = True  # mean 3, blocks of 4: two without foreground
    p = np.full((8, 8), value)
    even = 2 * value / (value**2 + 1), 2 * (1 - value) / ((1 - value) ** 2 + 1)
    objects = 2 / 64 * even[0] + 62 / 64 * even[1]
    expected = 0.5 * objects + 0.5 * 2 * 16 / 64
    assert s_measure(SaliencyPair.of(p, g)) == pytest.approx(expected, rel=1e-12)
