"""Every kind of map on one scale, and what is refused."""

import math

import numpy as np
import pytest
import torch

from foveal.metrics.probability_maps import as_array, probabilities


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 51, 255]], np.uint8), [[0, 51 / 255, 1]]),
        (np.array([[0, 1, 65535]], np.uint16), [[0, 1 / 65535, 1]]),
        (np.array([[0, 0.25, 1]], np.float16), [[0, 0.25, 1]]),
        (torch.tensor([[0, 0.25, 1]], dtype=torch.bfloat16), [[0, 0.25, 1]]),
        (torch.tensor([[0, 0.2, 1]], dtype=torch.float64, requires_grad=True), [[0, 0.2, 1]]),
        (torch.tensor([[True, False]]), [[1, 0]]),
        ([[0, 0.2, 1]], [[0, 0.2, 1]]),
    ],
)
def test_every_kind_is_the_same_scale(values, expected):
    p = probabilities(values)
    assert p.dtype == np.float64
    assert p.tolist() == expected


def test_the_map_is_a_copy():
    values = np.array([[0.5]])
    probabilities(values)[:] = 0
    assert values == 0.5
    assert np.shares_memory(as_array(values), values)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([[0, 1]], TypeError, "the mask must be uint8, uint16, bool or float, not int64"),
        ([["a"]], TypeError, "the mask must be uint8"),
        ([[0, math.nan]], ValueError, "the mask has values that are not finite"),
        ([[0, -math.inf]], ValueError, "the mask has values that are not finite"),
        ([[0.5, 1.5]], ValueError, r"the mask lies in \[0.5, 1.5\], not in \[0, 1\]; probab"),
        ([[-0.5, 0.5]], ValueError, r"the mask lies in \[-0.5, 0.5\]"),
    ],
)
def test_what_is_no_map_gets_one_sentence(values, error, message):
    with pytest.raises(error, match=message):
        probabilities(values, "mask")
