"""Curves and adaptive scores against one binary map per threshold, pixel by pixel."""

import numpy as np
import pytest

from foveal.metrics import score_saliency
from foveal.metrics.saliency_curves import at_levels, e_measure, f_measure, precision_recall


def picture(seed, height=9, width=11, share=0.3):
    rng = np.random.default_rng(seed)
    truth = rng.random((height, width)) < share
    return np.clip(0.4 * truth + 0.7 * rng.random(truth.shape), 0, 1), truth


def alignment(chosen, truth):
    """E by its definition: phi = 2ab / (a a + b b) of the two maps less their means."""
    if not truth.any():
        return (~chosen).sum() / (truth.size - 1)
    if truth.all():
        return chosen.sum() / (truth.size - 1)
    total = 0.0
    for c, t in zip(chosen.ravel().tolist(), truth.ravel().tolist(), strict=True):
        a, b = c - chosen.mean(), t - truth.mean()
        total += (2 * a * b / (a * a + b * b + 2.220446049250313e-16) + 1) ** 2 / 4
    return total / (truth.size - 1)


@pytest.mark.parametrize("seed", range(4))
def test_curves_are_those_of_256_binary_maps(seed):
    prediction, truth = picture(seed)
    curves = score_saliency(prediction, truth, min_max=False).curves
    for threshold in range(256):
        chosen = np.floor(255 * prediction) >= threshold
        found = (chosen & truth).sum()
        p, r = found / max(chosen.sum(), 1), found / truth.sum()
        assert curves.precision[threshold] == p
        assert curves.recall[threshold] == r
        f = 1.3 * p * r / (0.3 * p + r) if found else 0
        assert curves.f[threshold] == pytest.approx(f, abs=1e-15)
        assert curves.e[threshold] == pytest.approx(alignment(chosen, truth), rel=1e-12)


@pytest.mark.parametrize("share", [0, 0.3, 1.1])
@pytest.mark.parametrize("seed", range(3))
def test_the_adaptive_threshold_is_twice_the_mean(seed, share):
    prediction, truth = picture(seed, share=share)
    prediction = prediction ** (1 + 4 * seed)  # the mean falls from above to below a half
    chosen = prediction >= min(2 * prediction.mean(), 1)
    scores = score_saliency(prediction, truth, min_max=False)
    found = (chosen & truth).sum()
    p, r = found / max(chosen.sum(), 1), found / max(truth.sum(), 1)
    f = 1.3 * p * r / (0.3 * p + r) if found else 0
    assert scores.adaptive_f == pytest.approx(f, abs=1e-15)
    assert scores.adaptive_e == pytest.approx(alignment(chosen, truth), rel=1e-12)
    assert chosen.any() or not seed


def test_pictures_are_computed_together_as_alone():
    counts = np.random.default_rng(0).integers(0, 9, (3, 2, 256))
    counts[1, 0], counts[2, 1] = 0, 0  # a full and an empty truth
    together = at_levels(counts)
    for k in range(3):
        alone = at_levels(counts[k])
        assert e_measure(alone).tolist() == e_measure(together)[k].tolist()
        for ours, both in zip(precision_recall(alone), precision_recall(together), strict=True):
            assert ours.tolist() == both[k].tolist()


def test_f_weighs_precision_more():
    assert f_measure(1.0, 0.5) == pytest.approx(1.3 * 0.5 / 0.8)
    assert f_measure(0.5, 1.0) == pytest.approx(1.3 * 0.5 / 1.15)
    assert f_measure([0.0, 0.7, 0.0], [0.0, 0.0, 0.7]).tolist() == [0, 0, 0]
