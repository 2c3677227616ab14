import math

import pytest
import torch
from torch import nn

from foveal.losses import SymmetricCrossEntropy, create_loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]])
TARGET = torch.tensor([0, 2])
P = [[math.exp(z) / sum(math.exp(other) for other in row) for z in row] for row in LOGITS.tolist()]


def truth(p, t, alpha, beta, log_zero=-4.0):
    """Equations 5 to 7 for one sample: p and t are its probabilities."""
    forward = -sum(tk * math.log(pk) for pk, tk in zip(p, t, strict=True))
    logs = [max(math.log(tk), log_zero) if tk else log_zero for tk in t]
    return alpha * forward - beta * sum(pk * lk for pk, lk in zip(p, logs, strict=True))


@pytest.mark.parametrize("log_zero", [-4.0, -9.0])
def test_by_hand(log_zero):
    loss = SymmetricCrossEntropy(0.1, 1.0, log_zero)
    rows = [truth(P[0], (1, 0, 0), 0.1, 1, log_zero), truth(P[1], (0, 0, 1), 0.1, 1, log_zero)]
    assert loss(LOGITS, TARGET).item() == pytest.approx(sum(rows) / 2)


def test_soft_targets():
    soft = [[0.25, 0.75, 0.0], [0.0, 0.001, 0.999]]  # log 0.001 is below -4
    rows = [truth(p, t, 6.0, 0.1) for p, t in zip(P, soft, strict=True)]
    loss = create_loss("symmetric_cross_entropy", 3)
    assert loss(LOGITS, torch.tensor(soft)).item() == pytest.approx(sum(rows) / 2)
    one_hot = torch.eye(3)[TARGET]
    torch.testing.assert_close(loss(LOGITS, one_hot), loss(LOGITS, TARGET))


def test_class_weights_weight_samples():
    loss = create_loss("symmetric_cross_entropy", 3, torch.tensor([1.0, 3.0, 2.0]))
    rows = [truth(P[0], (1, 0, 0), 6, 0.1), 2 * truth(P[1], (0, 0, 1), 6, 0.1)]
    assert loss(LOGITS, TARGET).item() == pytest.approx(sum(rows) / 3)
    soft = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    forward = 0.25 * -math.log(P[0][0]) + 0.75 * 3 * -math.log(P[0][1])
    reverse = -sum(p * t for p, t in zip(P[0], (math.log(0.25), math.log(0.75), -4.0), strict=True))
    mixed = 6 * forward + 0.1 * (0.25 + 0.75 * 3) * reverse
    assert loss(LOGITS, soft).item() == pytest.approx((mixed + rows[1]) / 2)


def test_pixels_and_ignored_ones():
    pixels = torch.stack([LOGITS, LOGITS.flip(0)], 2)
    labels = torch.tensor([[0, 2], [255, 255]])
    loss = SymmetricCrossEntropy(ignore_index=255)
    torch.testing.assert_close(loss(pixels, labels), SymmetricCrossEntropy()(LOGITS, TARGET))
    sums = SymmetricCrossEntropy(ignore_index=255, reduction="none")(pixels, labels)
    assert sums.shape == (2, 2)
    assert sums[1].tolist() == [0, 0]


def test_without_the_reverse_part_it_is_cross_entropy():
    loss = SymmetricCrossEntropy(1.0, 0.0)
    torch.testing.assert_close(loss(LOGITS, TARGET), nn.functional.cross_entropy(LOGITS, TARGET))


def test_gradients_by_finite_differences():
    logits = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(SymmetricCrossEntropy(), (logits, TARGET))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1.0}, "alpha must be at least 0"),
        ({"beta": math.nan}, "beta must be at least 0"),
        ({"log_zero": 0.0}, "log_zero must be below 0"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        SymmetricCrossEntropy(**options)
