"""Hard examples against loops over pixels in float64."""

import math

import pytest
import torch
from torch import nn

from foveal.losses import OhemCrossEntropy, create_loss


def batch(seed=0, ignored=0.3):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(4, (2, 5, 6), generator=generator)
    target[torch.rand(2, 5, 6, generator=generator) < ignored] = 255
    return logits, target


def by_hand(logits, target, threshold, min_kept, weight=(1, 1, 1, 1)):
    """Return the loss of each kept pixel by its place, and the sum of the kept pixels' weights."""
    found = {}
    for b in range(2):
        for row in range(5):
            for column in range(6):
                k = target[b, row, column].item()
                if k != 255:
                    z = logits[b, :, row, column].tolist()
                    p = math.exp(z[k]) / sum(map(math.exp, z))
                    found[b, row, column] = (p, k)
    hardest = sorted(found, key=lambda place: found[place][0])
    kept = set(hardest[:min_kept]) | {place for place in found if found[place][0] <= threshold}
    losses = {place: -math.log(found[place][0]) * weight[found[place][1]] for place in kept}
    return losses, sum(weight[found[place][1]] for place in kept)


@pytest.mark.parametrize(
    ("threshold", "min_kept"), [(0.7, 1), (0.7, 0), (0.1, 30), (0.001, 5), (0.0, 1000), (1.0, 3)]
)
@pytest.mark.parametrize("weight", [None, (1.0, 3.0, 0.5, 2.0)])
def test_the_choice_by_hand(threshold, min_kept, weight):
    logits, target = batch()
    losses, total = by_hand(logits, target, threshold, min_kept, weight or (1, 1, 1, 1))
    assert 0 < len(losses) <= 60
    arguments = {
        "threshold": threshold,
        "min_kept": min_kept,
        "weight": None if weight is None else torch.tensor(weight),
        "ignore_index": 255,
    }
    mean = OhemCrossEntropy(**arguments)(logits, target)
    assert mean.item() == pytest.approx(sum(losses.values()) / total)
    each = OhemCrossEntropy(**arguments, reduction="none")(logits, target)
    assert {tuple(place) for place in each.nonzero().tolist()} == set(losses)
    for place, value in losses.items():
        assert each[place].item() == pytest.approx(value)
    summed = OhemCrossEntropy(**arguments, reduction="sum")(logits, target)
    assert summed.item() == pytest.approx(sum(losses.values()))


def test_where_all_are_kept_it_is_cross_entropy():
    """Fewer pixels than the default keeps."""
    logits, target = batch()
    weight = torch.rand(4) + 0.5
    loss = create_loss("ohem_cross_entropy", 4, weight, ignore_index=255)
    expected = nn.functional.cross_entropy(logits, target, weight.double(), ignore_index=255)
    torch.testing.assert_close(loss(logits, target), expected)


def test_probabilities_as_targets():
    """One-hot ones are class indices; the mean is over the kept samples."""
    logits, target = batch(ignored=0.0)
    one_hot = nn.functional.one_hot(target, 4).movedim(3, 1).double()
    loss = OhemCrossEntropy(min_kept=3)
    torch.testing.assert_close(loss(logits, one_hot), loss(logits, target))
    assert loss(logits, target) > nn.functional.cross_entropy(logits, target)


def test_equally_hard_samples_are_kept_together():
    logits, target = torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.int64)
    each = OhemCrossEntropy(threshold=0.1, min_kept=1, reduction="none")(logits, target)
    assert each[0].tolist() == pytest.approx([math.log(2)] * 4)


@pytest.mark.parametrize("min_kept", [0, 1, 100])
def test_where_nothing_counts_the_loss_is_zero(min_kept):
    logits, target = batch(ignored=1.0)
    logits.requires_grad_()
    loss = OhemCrossEntropy(min_kept=min_kept, ignore_index=255)(logits, target)
    assert loss.item() == 0
    loss.backward()
    assert not logits.grad.any()
    # Nor where nothing is hard.
    easy = OhemCrossEntropy(threshold=0.0, min_kept=0)(*batch(ignored=0.0))
    assert easy.item() == 0


def test_numbers_that_are_none_are_not_left_out():
    logits, target = batch()
    logits[0, :, 0, 0], target[0, 0, 0] = math.nan, 1
    assert OhemCrossEntropy(min_kept=0, ignore_index=255)(logits, target).isnan()


def test_gradients_by_finite_differences():
    logits, target = batch()
    loss = OhemCrossEntropy(min_kept=5, ignore_index=255)
    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(), target))


@pytest.mark.gpu
def test_nothing_is_read_back_from_the_device():
    logits, target = batch()
    logits, target = logits.cuda().requires_grad_(), target.cuda()
    loss = OhemCrossEntropy(min_kept=5, ignore_index=255)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(logits, target).backward()
    finally:
        torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.1}, r"threshold must lie in \[0, 1\], not 1.1"),
        ({"threshold": math.nan}, "threshold must lie in"),
        ({"min_kept": -1}, "min_kept must be at least 0, not -1"),
        ({"reduction": "median"}, "reduction must be"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        OhemCrossEntropy(**options)
