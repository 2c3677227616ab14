import math

import pytest
import torch
from torch import nn

from foveal.losses import LOSSES, OnlineLabelSmoothing, WithAuxiliary, create_loss

LOGITS = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
AUXILIARY = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
TARGET = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
TARGET[0, :2] = 255


def entropy(logits):
    """Mean cross entropy of the pixels that are not ignored, one by one."""
    losses = []
    for b, row, column in (TARGET != 255).nonzero().tolist():
        z = logits[b, :, row, column].tolist()
        total = math.log(sum(map(math.exp, z)))
        losses.append(total - z[TARGET[b, row, column]])
    return sum(losses) / len(losses)


def test_by_hand():
    loss = WithAuxiliary(nn.CrossEntropyLoss(ignore_index=255))
    assert loss(LOGITS, TARGET).item() == pytest.approx(entropy(LOGITS))
    expected = entropy(LOGITS) + 0.4 * entropy(AUXILIARY)  # the official code's share
    assert loss((LOGITS, AUXILIARY), TARGET).item() == pytest.approx(expected)


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5])])
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_ignored_as_a_whole_changes_nothing(name, weight):
    loss = WithAuxiliary(create_loss(name, 3, weight, ignore_index=255))
    logits, auxiliary = LOGITS.clone().requires_grad_(), AUXILIARY.clone().requires_grad_()
    value = loss((logits, auxiliary), torch.full_like(TARGET, 255))
    assert value.item() == 0
    value.backward()
    assert not logits.grad.any()
    assert not auxiliary.grad.any()
    # One pixel that counts, among pictures that do not.
    target = torch.full_like(TARGET, 255)
    target[1, 2, 3] = 1
    loss((logits, auxiliary), target).backward()
    assert logits.grad.isfinite().all()
    assert {tuple(place[[0, 2, 3]].tolist()) for place in logits.grad.nonzero()} == {(1, 2, 3)}


def test_a_network_that_has_failed_is_not_hidden():
    loss = WithAuxiliary(nn.CrossEntropyLoss(ignore_index=255))
    assert loss(LOGITS * math.nan, TARGET).isnan()


def test_each_head_has_its_own_soft_labels():
    loss = WithAuxiliary(OnlineLabelSmoothing(3, ignore_index=255))
    right = 9 * nn.functional.one_hot(TARGET.where(TARGET < 3, 0), 3).movedim(3, 1).float()
    loss((right, -right), TARGET)
    assert loss.main.count.sum() == (TARGET != 255).sum()
    assert loss.auxiliary.count.sum() == 0


def test_a_weight_below_zero():
    with pytest.raises(ValueError, match="must be at least 0, not -1"):
        WithAuxiliary(nn.CrossEntropyLoss(), -1)
