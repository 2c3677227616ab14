import math

import pytest
import torch
from torch import nn

from foveal.losses import GeneralizedCrossEntropy, create_loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]])
TARGET = torch.tensor([0, 2])
P = [[math.exp(z) / sum(math.exp(other) for other in row) for z in row] for row in LOGITS.tolist()]


def truth(p, q):
    return (1 - p**q) / q


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_by_hand(q):
    expected = (truth(P[0][0], q) + truth(P[1][2], q)) / 2
    assert GeneralizedCrossEntropy(q)(LOGITS, TARGET).item() == pytest.approx(expected)


def test_soft_targets_weights_and_pixels():
    weight = torch.tensor([1.0, 3.0, 2.0])
    soft = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    loss = create_loss("generalized_cross_entropy", 3, weight)
    rows = (0.25 * truth(P[0][0], 0.7) + 0.75 * 3 * truth(P[0][1], 0.7), 2 * truth(P[1][2], 0.7))
    assert loss(LOGITS, soft).item() == pytest.approx(sum(rows) / 2)
    expected = (truth(P[0][0], 0.7) + 2 * truth(P[1][2], 0.7)) / 3
    assert loss(LOGITS, TARGET).item() == pytest.approx(expected)
    pixels = torch.stack([LOGITS, LOGITS.flip(0)], 2)  # [2, 3, 2]
    labels = torch.tensor([[0, 2], [-100, -100]])
    assert loss(pixels, labels).item() == pytest.approx(expected)


def test_near_zero_it_is_cross_entropy():
    loss = GeneralizedCrossEntropy(1e-5).double()
    expected = nn.functional.cross_entropy(LOGITS.double(), TARGET)
    torch.testing.assert_close(loss(LOGITS.double(), TARGET), expected, rtol=1e-4, atol=0)


def test_gradients_by_finite_differences():
    logits = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(GeneralizedCrossEntropy(), (logits, TARGET))


@pytest.mark.parametrize("q", [0, 1.5, math.nan])
def test_q_out_of_range(q):
    with pytest.raises(ValueError, match=r"q must lie in \(0, 1\]"):
        GeneralizedCrossEntropy(q)
