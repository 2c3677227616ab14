"""What is taken as a saliency map and its truth, on which scale, and what is refused."""

import math

import numpy as np
import pytest
import torch

from foveal.metrics.saliency_pair import SaliencyPair, foreground_of

TRUTH = np.array([[False, True, True]])


@pytest.mark.parametrize(
    "prediction",
    [
        np.array([[0, 51, 255]], np.uint8),
        np.array([[0, 51 * 257, 65535]], np.uint16),
        np.array([[0, 0.2, 1]]),
        np.array([[0, 0.2, 1]], np.float32),
        torch.tensor([[0, 51, 255]], dtype=torch.uint8),
        torch.tensor([[0, 0.2, 1]], requires_grad=True),
        [[0, 0.2, 1]],
    ],
    ids=lambda p: f"{type(p).__name__} {getattr(p, 'dtype', '')}",
)
def test_every_kind_of_map_is_the_same_fractions(prediction):
    pair = SaliencyPair.of(prediction, TRUTH)
    assert pair.prediction.dtype == np.float64
    assert pair.prediction == pytest.approx(np.array([[0, 0.2, 1]]), abs=1e-7)


def test_maps_of_few_bits():
    assert SaliencyPair.of(TRUTH, TRUTH).prediction.tolist() == [[0, 1, 1]]
    half = torch.tensor([[0, 0.25, 1]], dtype=torch.bfloat16)
    assert SaliencyPair.of(half, TRUTH).prediction.tolist() == [[0, 0.25, 1]]


@pytest.mark.parametrize(
    "truth",
    [
        np.array([[0, 129, 255]], np.uint8),
        np.array([[128, 129, 255]], np.uint8),
        np.array([[0, 129, 255]]) / 255,
        np.array([[128, 129, 255]], np.float32) / np.float32(255),
        torch.tensor([[128, 129, 255]]).bfloat16() / 255,
        torch.tensor([[0.0, 1.0, 1.0]]),
        torch.tensor([[False, True, True]]),
    ],
)
def test_foreground_is_above_128(truth):
    assert foreground_of(truth).tolist() == [[False, True, True]]


def test_stretching_spans_all_values_or_leaves_them():
    given = np.array([[0.2, 0.4, 0.6]])
    assert SaliencyPair.of(given, TRUTH).prediction.tolist() == [[0, pytest.approx(0.5), 1]]
    plain = SaliencyPair.of(given, TRUTH, min_max=False)
    assert plain.prediction.tolist() == given.tolist()
    assert not plain.min_max
    assert given.tolist() == [[0.2, 0.4, 0.6]]  # not changed in place


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_map_stays_as_it_is(value):
    assert SaliencyPair.of(np.full((1, 3), value), TRUTH).prediction.tolist() == [[value] * 3]


@pytest.mark.parametrize(
    ("prediction", "truth", "error", "message"),
    [
        (
            np.zeros((4, 5)),
            np.zeros((5, 4), bool),
            ValueError,
            r"the same size, not \[4, 5\] and \[5, 4\]; resize the prediction to the truth",
        ),
        (np.zeros((1, 4, 5)), np.zeros((1, 4, 5), bool), ValueError, r"\[H, W\].*not \[1, 4, 5\]"),
        (np.zeros((0, 5)), np.zeros((0, 5), bool), ValueError, r"at least one pixel, not \[0, 5\]"),
        (np.array([[3, 9, 7]]), TRUTH, TypeError, "uint8, uint16, bool or float, not int64"),
        (np.array([[0.1, -2.5, 7]]), TRUTH, ValueError, r"\[-2.5, 7\].*probabilities.*not logits"),
        (np.array([[0.1, 2, 255]]), TRUTH, ValueError, r"\[0.1, 255\].*uint8 for 0..255"),
        (
            np.array([[0.1, math.nan, 1]]),
            TRUTH,
            ValueError,
            "prediction has values that are not fin",
        ),
        (
            np.array([[0.1, math.inf, 1]]),
            TRUTH,
            ValueError,
            "prediction has values that are not fin",
        ),
        (TRUTH, np.array([[0, 1, 2]]), TypeError, "truth must be uint8, bool or float, not int64"),
        (TRUTH, np.array([[0, 1, 1]], np.uint16), TypeError, "bool or float, not uint16"),
        (TRUTH, np.array([[0, 1, 1]], np.uint8), ValueError, "largest value 1: 0 and 1 belong in"),
        (TRUTH, np.array([[0, 1.0, -1]]), ValueError, r"without a label \(-1\): cut the padding"),
        (TRUTH, np.array([[0, 255.0, 255]]), ValueError, r"truth lies in \[0, 255\], not in"),
        (TRUTH, np.array([[0, math.nan, 1]]), ValueError, "truth has values that are not finite"),
    ],
)
def test_what_is_no_pair_gets_one_sentence(prediction, truth, error, message):
    with pytest.raises(error, match=message) as caught:
        SaliencyPair.of(prediction, truth)
    assert "\n" not in str(caught.value)
