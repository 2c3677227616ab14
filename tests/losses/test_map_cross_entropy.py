import math

import pytest
import torch

from foveal.losses.map_cross_entropy import (
    balanced_map_cross_entropy,
    labelled_pictures,
    map_cross_entropy,
)


def log_sigmoid(x):
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def plain_sum(logits, target):
    """Sum of -t log s - (1 - t) log (1 - s) over labelled pixels, and their number."""
    total, count = 0.0, 0
    for x, t in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t >= 0:
            total -= t * log_sigmoid(x) + (1 - t) * log_sigmoid(-x)
            count += 1
    return total, count


def balanced_sum(logits, target):
    """The same with the weights of the description, pixel by pixel."""
    values = target.flatten().tolist()
    positives = sum(t > 0.5 for t in values)
    negatives = sum(t == 0 for t in values)
    total = 0.0
    for x, t in zip(logits.flatten().tolist(), values, strict=True):
        if t > 0.5:
            total -= negatives / (positives + negatives) * log_sigmoid(x)
        elif t == 0:
            total -= 1.1 * positives / (positives + negatives) * log_sigmoid(-x)
    return total, positives + negatives


@pytest.fixture
def batch():
    torch.manual_seed(0)
    logits = 3 * torch.randn(3, 1, 5, 7, dtype=torch.float64)
    target = torch.rand(3, 1, 5, 7, dtype=torch.float64)
    target[target < 0.4] = 0
    target[0, :, :, 5:] = -1  # padded
    target[1] = -1  # of a set without this label
    return logits, target


@pytest.mark.parametrize(
    ("loss", "reference"),
    [(map_cross_entropy, plain_sum), (balanced_map_cross_entropy, balanced_sum)],
)
def test_both_reductions_are_means_over_pictures_with_labels(batch, loss, reference):
    logits, target = batch
    (first, n), (third, m) = (reference(logits[i], target[i]) for i in (0, 2))
    found = loss(logits, target, reduction="sum_per_image")
    assert found.item() == pytest.approx((first + third) / 2, rel=1e-12)
    found = loss(logits, target, reduction="mean")
    assert found.item() == pytest.approx((first / n + third / m) / 2, rel=1e-12)
    # What is padded, and pictures without labels, change nothing: neither value nor gradient.
    alone = [
        loss(logits[i : i + 1, ..., :w], target[i : i + 1, ..., :w]) for i, w in ((0, 5), (2, 7))
    ]
    assert loss(logits, target).item() == pytest.approx(sum(alone).item() / 2, rel=1e-12)
    logits.requires_grad_()
    loss(logits, target).backward()
    assert not logits.grad[target < 0].any()


@pytest.mark.parametrize("loss", [map_cross_entropy, balanced_map_cross_entropy])
def test_without_labels_the_loss_is_zero(loss):
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    found = loss(logits, torch.full((2, 1, 4, 4), -1.0))
    found.backward()
    assert found.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("fill", [0.0, 0.3])
def test_a_picture_without_positives_has_balanced_loss_zero(fill):
    logits = torch.randn(1, 1, 4, 4)
    assert balanced_map_cross_entropy(logits, torch.full((1, 1, 4, 4), fill)).item() == 0


def test_extreme_logits_and_half_precision_stay_finite():
    logits = torch.full((1, 1, 300, 300), 200.0, dtype=torch.float16)
    target = torch.zeros(1, 1, 300, 300)
    target[..., 0] = 1
    for loss in (map_cross_entropy, balanced_map_cross_entropy):
        found = loss(logits, target, reduction="sum_per_image")
        assert found.dtype == torch.float32
        assert torch.isfinite(found)
        assert found > 0


@pytest.mark.parametrize("loss", [map_cross_entropy, balanced_map_cross_entropy])
def test_wrong_arguments_get_one_sentence(loss):
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"must both be \[B, 1, H, W\]"):
        loss(x, x[0])
    with pytest.raises(ValueError, match="did you mean 'sum_per_image'"):
        loss(x, x, reduction="sum_per_imag")


@pytest.mark.parametrize("loss", [map_cross_entropy, balanced_map_cross_entropy])
def test_divided_by_the_mean_number_of_labelled_pictures_two_halves_average_to_the_whole(loss):
    """As DDP averages over processes; one half has three labelled pictures, the other none."""
    torch.manual_seed(0)
    logits = torch.randn(8, 1, 4, 4, dtype=torch.float64)
    target = (torch.rand(8, 1, 4, 4, dtype=torch.float64) > 0.7).double()
    target[3:] = -1
    whole = loss(logits, target)
    mean_count = (labelled_pictures(target[:4]) + labelled_pictures(target[4:])) / 2
    halves = [loss(logits[k], target[k], pictures=mean_count) for k in (slice(4), slice(4, None))]
    assert (sum(halves) / 2).item() == pytest.approx(whole.item(), rel=1e-12)
    nothing = torch.zeros((), dtype=torch.float64)
    assert loss(logits[4:], target[4:], pictures=nothing).item() == 0
