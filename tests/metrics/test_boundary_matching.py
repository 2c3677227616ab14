"""The matching against SciPy's dense assignment, a search through all matchings, and by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from foveal.metrics import match_boundaries
from foveal.metrics.boundary_matching import match, pairs_within


def scene(seed, side=14, share=0.2):
    """Return two binary maps and a tolerance in pixels."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(3, side, 2)
    prediction, truth = (rng.random(shape) < share * rng.random() for _ in range(2))
    return prediction, truth, float(rng.choice([1, 1.5, 2, math.sqrt(5), 3.2, 4.34]))


def distances(prediction, truth):
    return np.linalg.norm(
        np.argwhere(prediction)[:, None] - np.argwhere(truth)[None].astype(float), axis=2
    )


def matched_pairs(prediction, truth, tolerance):
    """Return the distances of the pairs that ``match`` chooses, after checking that it may."""
    pairs = pairs_within(np.argwhere(prediction), np.argwhere(truth), tolerance)
    predicted, true = match(pairs)
    assert len(set(predicted.tolist())) == len(predicted)
    assert len(set(true.tolist())) == len(true)
    chosen = distances(prediction, truth)[predicted, true]
    assert (chosen <= tolerance + 1e-9).all()
    return chosen


@pytest.mark.parametrize("seed", range(60))
def test_against_dense_assignment(seed):
    """As many pairs and as short in all as the dense optimum with a price on each lost pair."""
    prediction, truth, tolerance = scene(seed)
    cost = distances(prediction, truth)
    cost[cost > tolerance + 1e-9] = 1e4
    rows, columns = linear_sum_assignment(cost)
    best = cost[rows, columns][cost[rows, columns] < 1e4]
    chosen = matched_pairs(prediction, truth, tolerance)
    assert len(chosen) == len(best)
    assert chosen.sum() == pytest.approx(best.sum())


@pytest.mark.parametrize("seed", range(20))
def test_against_all_matchings(seed):
    prediction, truth, tolerance = scene(seed, side=5, share=0.5)
    d = distances(prediction, truth)[:6, :6]
    prediction, truth = (
        np.isin(np.arange(m.size).reshape(m.shape), np.flatnonzero(m)[:6])
        for m in (prediction, truth)
    )
    rows, columns = d.shape
    best = (0, 0.0)
    for n in range(1, min(rows, columns) + 1):
        for chosen in itertools.combinations(range(rows), n):
            for partners in itertools.permutations(range(columns), n):
                lengths = d[list(chosen), list(partners)]
                if (lengths <= tolerance).all():
                    best = max(best, (n, -lengths.sum()))
    chosen = matched_pairs(prediction, truth, tolerance)
    assert (len(chosen), -chosen.sum()) == (best[0], pytest.approx(best[1]))


def test_more_pairs_go_before_short_ones():
    """Both match only if the one that lies on a true pixel gives way: 1 + 1 beats 0 alone."""
    prediction = np.array([[1, 1, 0]], bool)
    truth = np.array([[0, 1, 1]], bool)
    assert matched_pairs(prediction, truth, 1).tolist() == [1, 1]
    assert matched_pairs(prediction, truth, 2).sum() == 2  # 0 + 2 or 1 + 1


def test_a_long_chain_moves_up():
    """200 shifts by one pixel win one pair; a price of fixed height would not pay for all."""
    n = 900
    prediction, truth = np.ones((1, n + 1), bool), np.ones((1, n + 1), bool)
    prediction[0, -1], truth[0, 0] = False, False
    assert matched_pairs(prediction, truth, 1).tolist() == [1] * n


@pytest.mark.parametrize(("tolerance", "pairs"), [(4.99, 0), (5, 1), (0.0075 * 2000 / 3, 1)])
def test_the_distance_is_inclusive(tolerance, pairs):
    prediction, truth = np.zeros((2, 6, 6), bool)
    prediction[1, 1] = truth[4, 5] = True
    assert len(matched_pairs(prediction, truth, tolerance)) == pairs


def test_only_pixels_on_each_other_match_without_tolerance():
    prediction, truth, _ = scene(3, share=0.8)
    for matched in match_boundaries(prediction, truth, 0):
        assert np.array_equal(matched, prediction & truth)


def test_masks_of_what_is_matched():
    prediction, truth = np.zeros((2, 5, 9), bool)
    prediction[2, 1:8] = True
    truth[3, 2:6] = True
    of_prediction, of_truth = match_boundaries(prediction, truth, 1)
    assert np.array_equal(of_truth, truth)
    assert np.argwhere(of_prediction).tolist() == [[2, x] for x in range(2, 6)]


def test_nothing_to_match():
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    for pair in ((empty, full), (full, empty), (empty, empty)):
        assert not any(matched.any() for matched in match_boundaries(*pair, 2))


def test_the_same_every_time():
    prediction, truth, _ = scene(7, side=40, share=0.9)
    first = match_boundaries(prediction, truth, 3)
    again = match_boundaries(prediction.copy(order="F"), truth.copy(order="F"), 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_sizes_that_differ():
    with pytest.raises(ValueError, match=r"the same size, not \[2, 3\] and \[3, 2\]"):
        match_boundaries(np.ones((2, 3), bool), np.ones((3, 2), bool), 1)
