"""The weighted F-measure against its formula on the whole picture, and cases by hand."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from foveal.metrics.saliency_pair import SaliencyPair
from foveal.metrics.saliency_weighted import FAR, weighted_f


def window():
    """Return the Gaussian of 7 x 7 pixels as one table of sum 1."""
    offsets = np.arange(-3, 4)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 5**2))
    return weights / weights.sum()


def formula(p, g, distance, nearest):
    """Of the whole picture, each step as it is written down."""
    error = np.abs(p - g)
    there = error[nearest[0], nearest[1]]
    padded = np.pad(there, 3)
    smooth = np.zeros_like(p)
    for i in range(p.shape[0]):
        for j in range(p.shape[1]):
            smooth[i, j] = (padded[i : i + 7, j : j + 7] * window()).sum()
    error = np.where(g, np.minimum(error, smooth), error)
    weighted = error * np.where(g, 1, 2 - np.exp(np.log(0.5) / 5 * distance))
    right, false = (1 - weighted[g]).sum(), weighted[~g].sum()
    recall, precision = 1 - weighted[g].mean(), right / (right + false)
    return 2 * recall * precision / (recall + precision)


def nearest_of(g):
    """Return distances and indices from a comparison with every foreground pixel."""
    places = np.argwhere(g)
    y, x = np.indices(g.shape)
    squares = (y[..., None] - places[:, 0]) ** 2 + (x[..., None] - places[:, 1]) ** 2
    return np.sqrt(squares.min(-1)), places[squares.argmin(-1)].transpose(2, 0, 1)


@pytest.mark.parametrize("place", [(0, 0), (5, 8), (9, 3), (2, 5)])
def test_one_pixel_against_the_formula(place):
    """No two are equally near. The window reaches beyond the border in some."""
    g = np.zeros((10, 12), bool)
    g[place] = True
    p = np.random.default_rng(0).random(g.shape)
    for map_ in (p, p * g, p * (np.arange(12) > 4)):
        pair = SaliencyPair.of(map_, g, min_max=False)
        assert weighted_f(pair) == pytest.approx(formula(map_, g, *nearest_of(g)), rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_whole_objects_against_the_formula(seed):
    """Of several nearest pixels SciPy's choice; what is cut away before must not change it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:35, :29]
    g = (y - rng.uniform(0, 35)) ** 2 + (x - rng.uniform(0, 29)) ** 2 < rng.uniform(2, 90)
    g |= (y - rng.uniform(0, 35)) ** 2 + (x - rng.uniform(0, 29)) ** 2 < rng.uniform(2, 60)
    p = np.clip(0.5 * g + 0.5 * rng.random(g.shape), 0, 1)
    p[rng.random(p.shape) < 0.3] = 0
    if seed % 2:  # nothing predicted far from the objects
        p[: max(np.nonzero(g)[0].min() - seed, 0)] = 0
        p[:, min(np.nonzero(g)[1].max() + seed, 29) :] = 0
    found = distance_transform_edt(~g, return_indices=True)
    pair = SaliencyPair.of(p, g, min_max=False)
    assert weighted_f(pair) == pytest.approx(formula(p, g, *found), rel=1e-12)


def test_another_choice_of_the_nearest_is_near():
    """As the specification measured: mirroring changes the fourth digit, no more."""
    rng = np.random.default_rng(3)
    g = rng.random((30, 40)) < 0.05
    p = np.clip(0.5 * g + 0.5 * rng.random(g.shape), 0, 1)
    ours = weighted_f(SaliencyPair.of(p, g, min_max=False))
    assert ours == pytest.approx(formula(p, g, *nearest_of(g)), abs=5e-3)
    assert ours == pytest.approx(weighted_f(SaliencyPair.of(p.T, g.T, min_max=False)), abs=5e-3)


def test_strips_and_columns_are_counted_once():
    """Of all pixels one is true and found; the others are false alarms of known weight."""
    g = np.zeros((100, 7), bool)
    g[0, 0] = True
    distance, _ = nearest_of(g)
    false = (2 - 2 ** (-distance / 5))[~g].sum()
    expected = 2 * 1 / (1 + false) / (1 + 1 / (1 + false))
    ours = weighted_f(SaliencyPair.of(np.ones(g.shape), g))
    assert ours == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("away", [FAR - 1, FAR, FAR + 1, 3 * FAR])
def test_far_false_alarms_count_twice(away):
    g = np.zeros((1, away + 1), bool)
    g[0, 0] = True
    p = g.astype(float)
    p[0, away] = 1
    precision = 1 / (1 + 2)
    expected = 2 * precision / (1 + precision)
    assert weighted_f(SaliencyPair.of(p, g)) == pytest.approx(expected, rel=1e-15)


def test_nothing_found_and_nothing_true():
    g = np.zeros((9, 9), bool)
    assert weighted_f(SaliencyPair.of(np.eye(9), g)) == 0
    assert weighted_f(SaliencyPair.of(np.zeros((9, 9)), g)) == 0
    g[3:6, 3:6] = True
    assert weighted_f(SaliencyPair.of(~g, g)) == 0
    assert weighted_f(SaliencyPair.of(g, g)) == 1
    assert weighted_f(SaliencyPair.of(np.ones((9, 9)), np.ones((9, 9), bool))) == 1
