"""Counts of drawn scenes by hand, and scores against the benchmark's published curve."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.morphology import thin

from foveal.metrics import (
    EDGES,
    SKELETONS,
    BoundaryProtocol,
    BoundaryScores,
    count_boundaries,
    summarize_boundaries,
    suppress_non_maxima,
)

CURVE = Path(__file__).parent.parent / "fixtures" / "metrics" / "bsds500_ucm_curve.csv"
PLAIN = BoundaryProtocol(tolerance=0.02, thresholds=9, nms=False)
"""On pictures of 60 by 80 pixels: a distance of 2."""


def lines(*rows, values=1.0, shape=(60, 80)):
    """Return a map with upright lines at the given columns, rows 10 to 49."""
    drawn = np.zeros(shape)
    for column, value in zip(rows, np.broadcast_to(values, len(rows)), strict=True):
        drawn[10:50, column] = value
    return drawn


def random_rows(pictures, thresholds=9, seed=0):
    """Return counts that could be: [N, 1 + 3 T]."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(pictures):
        true = rng.integers(50, 400)
        predicted = np.sort(rng.integers(0, 500, thresholds))[::-1]
        right = (predicted * rng.uniform(0.3, 1, thresholds)).astype(int)
        found = np.minimum(true, (right * rng.uniform(0.5, 1.2, thresholds)).astype(int))
        rows.append([true, *found, *predicted, *right])
    return np.array(rows)


def test_counts_by_hand():
    """Lines at 20 (0.85), 40 (0.55) and 60 (0.25); one annotator drew 21, the other 43 and 60."""
    prediction = lines(20, 40, 60, values=[0.85, 0.55, 0.25])
    counts = count_boundaries(prediction, [lines(21), lines(43, 60)], PLAIN)
    assert counts.true.tolist() == [40, 80]
    assert counts.predicted.tolist() == [120, 120, 80, 80, 80, 40, 40, 40, 0]
    assert counts.found.T.tolist() == [[40] * 8 + [0], [40, 40] + [0] * 7]  # 43 is 3 away from 40
    assert counts.right.tolist() == [80, 80, 40, 40, 40, 40, 40, 40, 0]
    wider = count_boundaries(prediction, [lines(21), lines(43, 60)], replace(PLAIN, tolerance=0.03))
    assert wider.found[:, 1].tolist() == [80, 80, 40, 40, 40, 0, 0, 0, 0]
    assert wider.right.tolist() == [120, 120, 80, 80, 80, 40, 40, 40, 0]


def test_a_pixel_that_two_annotators_drew_is_right_once_and_found_twice():
    counts = count_boundaries(lines(20), [lines(20), lines(21)], PLAIN)
    assert counts.found.tolist() == [[40, 40]] * 9
    assert counts.right.tolist() == [40] * 9


def test_one_predicted_pixel_finds_one_true_pixel():
    counts = count_boundaries(lines(20), lines(19, 21), PLAIN)
    assert counts.found.tolist() == [[40]] * 9
    assert counts.true.tolist() == [80]


def test_the_map_is_thinned_at_each_threshold():
    thick = lines(*range(18, 25), values=0.3) + lines(*range(20, 23), values=0.4)
    counts = count_boundaries(thick, lines(21), PLAIN)
    for cut, level in enumerate(PLAIN.levels):
        assert counts.predicted[cut] == thin(thick >= level).sum()
    assert 30 < counts.predicted[0] < 60
    plain = count_boundaries(thick, lines(21), replace(PLAIN, thin=False))
    assert plain.predicted.tolist() == [280, 280, 280, 120, 120, 120, 120, 0, 0]


def test_crests_are_taken_before_the_map_is_cut():
    x = np.arange(80)
    soft = np.tile(0.9 * np.exp(-((x - 40.0) ** 2) / 50), (60, 1))
    counts = count_boundaries(soft, lines(40), replace(PLAIN, nms=True))
    crest = suppress_non_maxima(soft)
    assert counts.predicted.tolist() == [(crest >= level).sum() for level in PLAIN.levels]
    assert set(np.nonzero(crest)[1].tolist()) == {40}
    assert counts.found[:8].tolist() == [[40]] * 8


def test_thresholds_include_their_value():
    """8 bits: 51 is exactly 0.2, and only 0.2 or more is a boundary at 0.2."""
    for value, expected in ((50, 1), (51, 2)):
        prediction = np.full((60, 80), 0, np.uint8)
        prediction[10:50, 20] = value
        counts = count_boundaries(prediction, lines(20), PLAIN)
        assert (counts.predicted > 0).sum() == expected
    assert EDGES.levels[[0, 50, 98]].tolist() == [0.01, 0.51, 0.99]
    assert BoundaryProtocol(tolerance=0.0075, thresholds=5).levels.tolist() == pytest.approx(
        [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6]
    )


@pytest.mark.parametrize("seed", range(3))
def test_equal_cuts_are_counted_like_the_others(seed):
    """Of a map with few values most cuts are those before; each threshold alone tells the same."""
    rng = np.random.default_rng(seed)
    truth = lines(20, 40) > 0
    few = np.where(rng.random((60, 80)) < 0.1, rng.choice([0.33, 0.65], (60, 80)), 0)
    whole = count_boundaries(few, truth, replace(PLAIN, thresholds=29))
    for cut in (3, 9, 10, 15, 28):
        level = (cut + 1) / 30
        alone = count_boundaries(few >= level, truth, replace(PLAIN, thresholds=1))
        assert [int(n[cut].sum()) for n in whole[1:]] == [int(n.sum()) for n in alone[1:]]


def test_arrays_of_pillows_pictures_of_one_bit():
    """Their bytes are 0 and 255, where NumPy's own are 0 and 1."""
    drawn = lines(20, 21, 40) > 0
    stored = np.asarray(Image.fromarray(drawn))
    assert stored.dtype == bool
    assert stored.view(np.uint8).max() == 255
    for protocol in (PLAIN, SKELETONS):
        found, expected = (count_boundaries(lines(20, 41), d, protocol) for d in (stored, drawn))
        assert found.row.tolist() == expected.row.tolist()
    found, expected = (count_boundaries(d, lines(20), PLAIN) for d in (stored, drawn))
    assert found.row.tolist() == expected.row.tolist()


def test_skeletons_are_stretched_and_their_truth_thinned():
    assert (SKELETONS.tolerance, EDGES.tolerance) == (0.01, 0.0075)
    thick = lines(39, 40, 41)
    counts = count_boundaries(lines(40, values=0.5), thick, replace(SKELETONS, nms=False))
    assert counts.true.tolist() == [thin(thick > 0).sum()]
    assert (counts.predicted == 40).all()  # 0.5 is this map's largest value, 1
    unstretched = replace(SKELETONS, nms=False, stretch=False, thin_truth=False)
    counts = count_boundaries(lines(40, values=0.5), thick, unstretched)
    assert counts.true.tolist() == [120]
    assert (counts.predicted > 0).sum() == 50


@pytest.mark.parametrize("protocol", [EDGES, SKELETONS, PLAIN])
def test_nothing_drawn_and_nothing_predicted(protocol):
    protocol = replace(protocol, thresholds=9)
    empty, full = np.zeros((60, 80)), lines(20)
    nothing = count_boundaries(empty, [full, empty], protocol)
    assert nothing.true.tolist() == [40, 0]
    assert not nothing.predicted.any()
    assert not nothing.found.any()
    wrong = count_boundaries(full, empty, protocol)
    assert wrong.true.tolist() == [0]
    assert not wrong.right.any()
    one_of_two = count_boundaries(full, [full, empty], protocol)
    alone = count_boundaries(full, full, protocol)
    assert one_of_two.row.tolist() == alone.row.tolist()  # who drew nothing adds nothing
    neither = count_boundaries(empty, empty, protocol)
    assert not neither.row.any()


@pytest.mark.parametrize("value", [0.4, 1.0])
def test_a_constant_map(value):
    counts = count_boundaries(np.full((60, 80), value), lines(20), PLAIN)
    expected = thin(np.ones((60, 80), bool)).sum()
    assert counts.predicted.tolist() == [expected if value >= t else 0 for t in PLAIN.levels]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types(dtype):
    prediction, truth = lines(20, values=0.75), lines(20)
    expected = count_boundaries(prediction, truth, PLAIN)
    maps = (
        torch.tensor(prediction).to(dtype),
        np.rint(prediction * 255).astype(np.uint8),
        np.rint(prediction * 65535).astype(np.uint16),
    )
    truths = truth[None] > 0, truth.astype(np.uint8), torch.tensor(truth)[None].to(dtype), [truth]
    for given, drawn in zip((*maps, maps[0]), truths, strict=True):
        assert count_boundaries(given, drawn, PLAIN).row.tolist() == expected.row.tolist()
    flat = count_boundaries(prediction > 0, truth, PLAIN)
    assert (flat.predicted == 40).all()


@pytest.mark.parametrize(
    ("prediction", "truth", "error", "message"),
    [
        (np.ones((3, 4)), np.ones((4, 3)), ValueError, "3 rows and 4 columns, its truth 4 and 3"),
        (np.ones((3, 4)) * 2, np.ones((3, 4)), ValueError, "probabilities are wanted, not logits"),
        (np.full((3, 4), np.nan), np.ones((3, 4)), ValueError, "not finite"),
        (np.ones((3, 4), int), np.ones((3, 4)), TypeError, "uint8, uint16, bool or float, not int"),
        (np.ones((1, 3, 4)), np.ones((3, 4)), ValueError, r"\[H, W\] with at least one pixel"),
        (np.ones((0, 4)), np.ones((0, 4)), ValueError, r"at least one pixel, not \[0, 4\]"),
        (np.ones((3, 4)), np.ones((0, 3, 4)), ValueError, "at least one annotator"),
        (np.ones((3, 4)), [], ValueError, "one or more maps of one size"),
        (np.ones((3, 4)), [np.ones((3, 4)), np.ones((4, 3))], ValueError, "maps of one size"),
        (np.ones((3, 4)), np.full((3, 4), 0.5), ValueError, "0 and 1, but holds 0.5"),
        (np.ones((3, 4)), np.full((3, 4), 255), ValueError, "0 and 1, but holds 255"),
        (np.ones((3, 4)), np.full((3, 4), "a"), TypeError, "truth is bool, or 0 and 1"),
    ],
)
def test_input_that_cannot_be_counted(prediction, truth, error, message):
    with pytest.raises(error, match=message):
        count_boundaries(prediction, truth)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": 4.3}, "share of the diagonal"),
        ({"tolerance": -1}, "share of the diagonal"),
        ({"tolerance": 0.01, "thresholds": 0}, "thresholds must be at least 1, not 0"),
    ],
)
def test_a_protocol_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        BoundaryProtocol(**arguments)


def test_the_benchmarks_published_curve():
    """The scores that the benchmark ships, from the curve that it ships, to its six digits."""
    threshold, recall, precision, f = np.loadtxt(CURVE, delimiter=",", skiprows=2).T
    assert threshold == pytest.approx(EDGES.levels)
    scale = 10**7  # so many pixels that whole numbers give the six digits
    found, right = (np.rint(values * scale) for values in (recall, precision))
    summary = summarize_boundaries([[scale, *found, *[scale] * 99, *right]])
    assert summary.ods == pytest.approx(0.726253, abs=1e-6)
    assert summary.threshold == pytest.approx(0.132121, abs=1e-6)  # between two thresholds
    assert summary.ap == pytest.approx(0.726626, abs=2e-6)
    assert summary.recall == pytest.approx(recall)
    assert summary.precision == pytest.approx(precision)
    assert summary.ods > f.max()
    # One picture: its best threshold, not interpolated.
    assert summary.ois == pytest.approx(f.max(), abs=1e-6)


def test_scores_by_hand():
    """Two pictures, three thresholds; what follows is arithmetic on their counts."""
    rows = [
        [100, 80, 60, 20, 200, 80, 20, 90, 60, 18],
        [50, 40, 10, 0, 50, 40, 0, 30, 20, 0],
    ]
    summary = summarize_boundaries(rows)
    recall = [120 / 150, 70 / 150, 20 / 150]
    precision = [120 / 250, 80 / 120, 18 / 20]
    assert summary.recall.tolist() == recall
    assert summary.precision.tolist() == precision
    f = [
        2 * r * p / (r + p)
        for step in range(100)
        for i in (0, 1)
        for r, p in [
            [v[i] + (v[i + 1] - v[i]) * step / 99 for v in (recall, precision)],
        ]
    ]
    assert summary.ods == pytest.approx(max(f))
    # The first is best at its second threshold (F 0.667), the second at its first (0.686).
    r, p = (60 + 40) / 150, (60 + 30) / (80 + 50)
    assert summary.ois == pytest.approx(2 * r * p / (r + p))

    def between(x, xs, ys):
        """ys at x, on the straight line between its neighbours; xs ascending."""
        for a, b, c, d in zip(xs, xs[1:], ys, ys[1:], strict=False):
            if a <= x <= b:
                return c + (d - c) * (x - a) / (b - a)
        return 0.0

    area = sum(between(k / 100, recall[::-1], precision[::-1]) for k in range(101)) / 100
    assert summary.ap == pytest.approx(area)
    assert summary.r50 == pytest.approx(between(0.5, precision, recall))
    assert 0.46 < summary.r50 < 0.8


def test_the_first_of_equal_thresholds_is_the_best_of_a_picture():
    """F is 0.5 at both, with other counts."""
    rows = [[12, 6, 4, 12, 4, 6, 4], [20, 0, 20, 10, 20, 0, 20]]
    first = _f(6 + 20, 32, 6 + 20, 12 + 20)
    assert summarize_boundaries(rows).ois == pytest.approx(first)
    assert first != pytest.approx(_f(4 + 20, 32, 4 + 20, 4 + 20))


def _f(found, true, right, predicted):
    r, p = found / true, right / predicted
    return 2 * r * p / (r + p)


def test_equal_recalls_count_at_the_lowest_threshold():
    rows = [
        [10, 8, 8, 2, 20, 10, 2, 10, 9, 2]
    ]  # recall 0.8 with precision 0.5, then 0.9; 0.2 with 1
    summary = summarize_boundaries(rows)
    line = [1 + (0.5 - 1) * (k / 100 - 0.2) / 0.6 for k in range(20, 81)]
    assert summary.ap == pytest.approx(sum(line) / 100)


def test_precisions_of_one_side_of_a_half():
    high = summarize_boundaries([[10, 8, 4, 10, 4, 8, 4]])  # precision 0.8 and 1
    assert high.r50 == 0.8
    low = summarize_boundaries([[10, 8, 4, 100, 40, 8, 4]])
    assert low.r50 == 0


def test_a_perfect_binary_map():
    truth = lines(20, 50) > 0
    scores = summarize_boundaries([count_boundaries(truth, truth, PLAIN).row])
    assert (scores.ods, scores.ois, scores.r50) == (1, 1, 1)
    assert scores.ap == 0  # its curve is one point, as in the benchmark


def test_nothing_true_in_all_pictures():
    rows = [count_boundaries(lines(20), np.zeros((60, 80)), PLAIN).row]
    summary = summarize_boundaries(rows)
    assert all(math.isnan(value) for value in summary[:5])
    assert not summary.precision.any()


def test_a_picture_without_truth_lowers_precision():
    good = count_boundaries(lines(20), lines(20), PLAIN).row
    bad = count_boundaries(lines(20), np.zeros((60, 80)), PLAIN).row
    summary = summarize_boundaries([good, bad])
    assert summary.recall.tolist() == [1] * 9
    assert summary.precision.tolist() == [0.5] * 9
    assert summary.ods == summary.ois == pytest.approx(2 / 3)


def test_nothing_predicted():
    row = count_boundaries(np.zeros((60, 80)), lines(20), PLAIN).row
    summary = summarize_boundaries([row])
    assert summary[:4] == (0, 0, 0, 0)


def scored(pictures, order, protocol=PLAIN):
    scores = BoundaryScores(protocol)
    for index in order:
        scores.update(torch.tensor(index), *pictures[index])
    return scores


@pytest.fixture(scope="module")
def pictures():
    """Return maps and truths of different sizes and numbers of annotators."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(5):
        shape = tuple(rng.integers(20, 40, 2))
        truths = torch.tensor(rng.random((1 + number % 3, *shape)) < 0.1)
        found.append((torch.tensor(rng.random(shape) * (rng.random(shape) < 0.2)), truths))
    return found


def test_the_metric_sums_the_pictures(pictures):
    scores = scored(pictures, range(5)).compute()
    expected = summarize_boundaries([count_boundaries(*p, PLAIN).row for p in pictures])
    assert list(scores) == ["ods", "ois", "ap", "r50"]
    assert scores == {name: getattr(expected, name) for name in scores}
    assert 0 < scores["ods"] <= scores["ois"] < 1


def test_order_and_repeats_change_nothing(pictures):
    expected = scored(pictures, range(5)).compute()
    assert scored(pictures, [3, 1, 4, 0, 2]).compute() == expected  # to the last digit
    repeated = scored(pictures, [0, 1, 2, 2, 3, 4, 0])
    assert repeated.compute() == expected
    other = (pictures[3][0].flip(0), pictures[3][1])
    repeated.update(torch.tensor(3), *other)  # another process' rounding: the first counts
    assert repeated.compute() == expected


def test_states_of_two_processes_add_up(pictures):
    """As torchmetrics does it: rows of all processes one after the other."""
    first, second = scored(pictures, [0, 2, 4]), scored(pictures, [1, 3, 0])
    whole = scored(pictures, range(5)).compute()
    first.rows = [torch.cat([*first.rows, *second.rows])]
    assert first.compute() == whole
    assert first.summary.recall.shape == (9,)


def test_fewer_thresholds_for_validation(pictures):
    fine = scored(pictures, range(5), replace(PLAIN, thresholds=19))
    coarse = scored(pictures, range(5), PLAIN)
    fine.compute()
    coarse.compute()
    assert coarse.summary.recall.tolist() == fine.summary.recall[1::2].tolist()


def test_random_counts_obey_bounds():
    for seed in range(20):
        summary = summarize_boundaries(random_rows(6, seed=seed))
        grid = 2 * summary.recall * summary.precision / (summary.recall + summary.precision + 1e-12)
        assert grid.max() - 1e-9 <= summary.ods <= 1
        assert 0 <= summary.ap <= 1
