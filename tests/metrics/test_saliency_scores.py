"""Whole scores of saliency maps: values by hand, PySODMetrics, two processes, odd pictures."""

import math
import warnings

import numpy as np
import pytest
import torch

from foveal.metrics import SaliencyScores, score_saliency

NAMES = {
    *("mae", "s_measure", "weighted_f", "max_f", "max_f_of_mean_curve", "mean_of_max_f", "mean_f"),
    *("adaptive_f", "e_measure", "max_e", "adaptive_e", "min_max"),
}


def blob(rng, height, width):
    """Return a truth of one or two discs, uint8 0 or 255."""
    y, x = np.mgrid[:height, :width]
    truth = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 3)):
        middle, radius = rng.random(2) * (height, width), rng.uniform(1, 0.4 * min(height, width))
        truth |= (y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= radius**2
    return truth.astype(np.uint8) * 255


def pictures(count=7, seed=0):
    """Return (prediction, truth) pairs of different sizes, uint8 tensors."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        truth = blob(rng, *rng.integers(5, 40, 2))
        soft = 0.5 * truth + rng.integers(0, 128, truth.shape)
        pairs.append((torch.from_numpy(soft.astype(np.uint8)), torch.from_numpy(truth)))
    return pairs


def scored(pairs, order=None, **options):
    scores = SaliencyScores(**options)
    for index in range(len(pairs)) if order is None else order:
        scores.update(torch.tensor(index), *pairs[index])
    return scores


def test_two_pictures_by_hand():
    """Two pixels each; F at a threshold is 1.3 P R / (0.3 P + R)."""
    first = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])  # right
    second = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.0, 1.0]])  # upside down
    scores = scored([first, second], min_max=False)
    result = scores.compute()
    assert set(result) == NAMES
    assert result["min_max"] == 0.0
    assert result["mae"] == pytest.approx((0 + 0.75) / 2)
    # The second: up to 63 = floor(255 / 4) both pixels are predicted, to 191 the wrong one.
    half = 1.3 * 0.5 / (0.3 * 0.5 + 1)
    of_means = 1.3 * 0.75 / (0.3 * 0.75 + 1)  # at 1 to 63: P (1 + 0.5) / 2, R 1
    assert result["max_f"] == pytest.approx(of_means)
    assert result["max_f_of_mean_curve"] == pytest.approx((1 + half) / 2)
    assert result["mean_of_max_f"] == pytest.approx((1 + half) / 2)
    mean_curve = [half] + [(1 + half) / 2] * 63 + [0.5] * 192
    assert scores.curves.f == pytest.approx(mean_curve)
    assert result["mean_f"] == pytest.approx(sum(mean_curve) / 256)
    assert scores.curves.precision[[0, 1, 63, 64, 255]].tolist() == [0.5, 0.75, 0.75, 0.5, 0.5]
    assert scores.curves.recall[[0, 63, 64, 255]].tolist() == [1, 1, 0.5, 0.5]
    # Twice the mean is 1: the first keeps the right pixel, the second none.
    assert result["adaptive_f"] == pytest.approx(0.5)
    # E of two pixels, divided by 1: the right map 2, all 2 * 1/4, the opposite map 0, none 2 * 1/4.
    e = [(0.5 + 0.5) / 2] + [(2 + 0.5) / 2] * 63 + [(2 + 0) / 2] * 128 + [(2 + 0.5) / 2] * 64
    assert scores.curves.e == pytest.approx(e)
    assert result["e_measure"] == pytest.approx(sum(e) / 256)
    assert result["max_e"] == pytest.approx(1.25)
    assert result["adaptive_e"] == pytest.approx(1.25)


def test_a_set_is_the_mean_of_its_pictures():
    pairs = pictures()
    result, each = scored(pairs).compute(), [score_saliency(*pair) for pair in pairs]
    for name in ("mae", "s_measure", "weighted_f", "adaptive_f", "adaptive_e"):
        mean = np.mean([getattr(picture, name) for picture in each])
        assert result[name] == pytest.approx(mean, rel=1e-14)
    f, e = (np.mean([getattr(p.curves, name) for p in each], 0) for name in ("f", "e"))
    assert result["max_f_of_mean_curve"] == pytest.approx(f.max(), rel=1e-14)
    assert result["mean_f"] == pytest.approx(f.mean(), rel=1e-14)
    assert result["max_e"] == pytest.approx(e.max(), rel=1e-14)
    assert result["e_measure"] == pytest.approx(e.mean(), rel=1e-14)
    assert result["mean_of_max_f"] == pytest.approx(np.mean([p.curves.f.max() for p in each]))
    p, r = (np.mean([getattr(p.curves, n) for p in each], 0) for n in ("precision", "recall"))
    assert result["max_f"] == pytest.approx((1.3 * p * r / (0.3 * p + r + 1e-300)).max())


def test_the_conventions_of_maximal_f_differ():
    result = scored(pictures()).compute()
    three = [result[n] for n in ("max_f", "max_f_of_mean_curve", "mean_of_max_f")]
    assert min(abs(three[i] - three[j]) for i in range(3) for j in range(i)) > 1e-5
    assert result["mean_of_max_f"] >= result["max_f_of_mean_curve"]


def test_stretching_is_stated_and_matters():
    pairs = [(prediction // 2 + 20, truth) for prediction, truth in pictures()]
    stretched, plain = scored(pairs).compute(), scored(pairs, min_max=False).compute()
    assert (stretched["min_max"], plain["min_max"]) == (1.0, 0.0)
    assert abs(stretched["mae"] - plain["mae"]) > 0.01
    first, truth = pairs[0]
    expected = (first / 255 - (truth > 128).double()).abs().mean().item()
    assert score_saliency(first, truth, min_max=False).mae == pytest.approx(expected)
    p = (first.double() - first.min()) / (first.max() - first.min())
    assert score_saliency(first, truth).mae == pytest.approx(
        (p - (truth > 128).double()).abs().mean().item()
    )


def test_scores_do_not_depend_on_order():
    pairs = pictures(20)
    order = np.random.default_rng(1).permutation(20).tolist()
    first, second = scored(pairs), scored(pairs, order)
    assert first.compute() == second.compute()  # to the last digit
    for ours, theirs in zip(first.curves, second.curves, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_picture_that_two_processes_saw_counts_once():
    pairs = pictures()
    repeated = scored(pairs, [5, 1, 2, 0, 1, 2, 3, 4, 5, 6, 0])
    repeated.update(torch.tensor(3), pairs[3][0].flip(0), pairs[3][1])  # the first one counts
    assert repeated.compute() == scored(pairs).compute()


def shard(rank, address, folder):
    """Score some of the pictures in a process of two, the last of them in both."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    scores = scored(pictures(), ([6, 0], [1, 2, 3, 4, 5, 6])[rank])
    torch.save((scores.compute(), scores.column("index")), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed here")
def test_two_processes_equal_one(tmp_path):
    torch.multiprocessing.spawn(shard, (f"file://{tmp_path}/meeting", tmp_path), nprocs=2)
    expected = scored(pictures()).compute()
    for rank in (0, 1):
        result, seen = torch.load(tmp_path / f"{rank}.pt")
        assert result == expected  # to the last digit
        assert seen.tolist() == list(range(7))


def test_each_picture_can_be_looked_up():
    pairs = pictures()
    scores = scored(pairs, reversed(range(7)))
    scores.compute()
    assert scores.column("index").tolist() == list(range(7))
    expected = [score_saliency(*pair).weighted_f for pair in pairs]
    assert scores.column("weighted_f").tolist() == expected
    assert scores.column("not_finite").tolist() == [0] * 7


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_value_that_is_not_finite_is_wrong(value, kind):
    truth = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]])
    prediction, opposite = 0.8 * truth + 0.1, 0.8 * truth + 0.1
    prediction[0, 1] = prediction[1, 2] = value
    opposite[0, 1], opposite[1, 2] = 1, 0
    target = truth.to(kind) * 255 if kind is torch.uint8 else truth
    scores = scored([(prediction, target)])
    assert scores.compute() == scored([(opposite, target)]).compute()
    assert scores.column("not_finite").tolist() == [2]
    nothing = scored([(torch.full_like(truth, value), target)]).compute()
    assert (nothing["mae"], nothing["max_f"]) == (1, 1.3 * 0.5 / (0.3 * 0.5 + 1))


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [  # empty truth, full truth, constant prediction, one pixel: mae, S, weighted F, mean E, max F
        ([[0.2, 0.4]], [[0, 0]], (0.3, 0.7, 0, (51 * 1 + 153 * 2) / 256, 0)),
        ([[0.2, 0.4]], [[1, 1]], (0.7, 0.3, None, (52 * 2 + 51 * 1) / 256, 1)),
        ([[0.0, 0.0]], [[0, 0]], (0, 1, 0, 510 / 256, 0)),
        ([[1.0, 1.0]], [[1, 1]], (0, 1, 1, 2, 1)),
        ([[0.5, 0.5]], [[0, 1]], (0.5, None, None, 0.5, 1.3 * 0.5 / (0.3 * 0.5 + 1))),
        ([[0.7]], [[1]], (0.3, 0.7, None, 179 / 256, 1)),
        ([[0.7]], [[0]], (0.7, 0.3, 0, 77 / 256, 0)),
    ],
)
def test_what_has_no_two_sides(prediction, truth, expected):
    """None: of no simple value."""
    pair = torch.tensor(prediction, dtype=torch.float64), torch.tensor(truth, dtype=torch.float32)
    result = scored([pair], min_max=False).compute()
    for name, value in zip(
        ("mae", "s_measure", "weighted_f", "e_measure", "max_f"), expected, strict=True
    ):
        assert math.isfinite(result[name])
        if value is not None:
            assert result[name] == pytest.approx(value, abs=1e-12), name


def test_a_perfect_map():
    _, truth = pictures(1)[0]
    result = scored([(truth, truth)]).compute()
    assert result["mae"] == 0
    for name in ("s_measure", "weighted_f", "max_f", "adaptive_f", "mean_of_max_f"):
        assert result[name] == pytest.approx(1, abs=1e-12), name
    n = truth.numel()
    assert result["adaptive_e"] == pytest.approx(n / (n - 1), rel=1e-12)  # the official n - 1


def test_eight_bits_and_their_fractions_score_alike():
    for prediction, truth in pictures():
        of_bytes = score_saliency(prediction, truth)
        of_fractions = score_saliency(prediction.double() / 255, truth > 128)
        for ours, theirs in zip(of_bytes[:5], of_fractions[:5], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-12)
        assert np.array_equal(of_bytes.curves.f, of_fractions.curves.f)


def reference_scores(pairs):
    """Return what PySODMetrics says: scores per picture, and curves from threshold 0 on."""
    package = pytest.importorskip(
        "py_sod_metrics", reason="PySODMetrics is not installed: pip install pysodmetrics"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Fmeasure will be replaced
        f = package.Fmeasure(beta=0.3)
    mae, s, e, w = (
        package.MAE(),
        package.Smeasure(alpha=0.5),
        package.Emeasure(),
        package.WeightedFmeasure(beta=1),
    )
    for prediction, truth in pairs:
        for metric in (f, mae, s, e, w):
            metric.step(pred=prediction.numpy(), gt=truth.numpy())
    f, e = f.get_results(), e.get_results()
    return {
        "mae": mae.get_results()["mae"],
        "s_measure": s.get_results()["sm"],
        "weighted_f": w.get_results()["wfm"],
        "adaptive_f": f["fm"]["adp"],
        "mean_f": f["fm"]["curve"].mean(),
        "max_f_of_mean_curve": f["fm"]["curve"].max(),
        "adaptive_e": e["em"]["adp"],
        "e_measure": e["em"]["curve"].mean(),
        "max_e": e["em"]["curve"].max(),
    }, (f["pr"]["p"], f["pr"]["r"], f["fm"]["curve"], e["em"]["curve"])


def blocks(truth):
    """Return the S-measure's blocks of a truth; of an empty one PySODMetrics makes nan."""
    place = (truth > 128).nonzero().double().mean(0).nan_to_num()
    y, x = (place.round() + 1).int().tolist()
    return truth[:y, :x], truth[:y, x:], truth[y:, :x], truth[y:, x:]


@pytest.mark.parametrize("seed", range(5))
def test_pysodmetrics_says_the_same(seed):
    rng = np.random.default_rng(seed)
    pairs = pictures(12, seed)
    ends = [np.zeros((9, 13), np.uint8), np.full((9, 13), 255, np.uint8)]
    pixel = ends[0].copy()
    pixel[2, 5] = 255
    noise = rng.integers(0, 256, (9, 13)).astype(np.uint8)
    constant = np.full((9, 13), rng.integers(256), np.uint8)
    odd = [(p, t) for p in (noise, constant, *ends) for t in (*ends, pixel, noise)]
    pairs += [(torch.from_numpy(p), torch.from_numpy(t)) for p, t in odd]
    pairs = [pair for pair in pairs if all(block.numel() for block in blocks(pair[1]))]
    expected, curves = reference_scores(pairs)
    scores = scored(pairs)
    result = scores.compute()
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-12), name
    for ours, theirs in zip(scores.curves, curves, strict=True):
        assert np.abs(ours - np.flip(theirs)).max() < 1e-12
