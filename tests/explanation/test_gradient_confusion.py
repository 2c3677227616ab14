import itertools
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foveal.explanation import gradient_confusion
from foveal.losses import OnlineLabelSmoothing


class Small(nn.Module):
    """Normalisation, dropout, a frozen parameter and one that nothing depends on."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)
        self.idle = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)) * self.frozen)


def batches(count, seed=1):
    torch.manual_seed(seed)
    return [(torch.randn(6, 3, 8, 8), torch.arange(6) % 5, "ignored") for _ in range(count)]


def log_softmax_loss(logits, target):
    """Return the cross entropy, written out."""
    return (logits.exp().sum(1).log() - logits[torch.arange(len(target)), target]).mean()


def by_hand(model, data, training):
    """Return each batch's gradient by ``backward``, all in float64, one row for each batch."""
    rows = []
    for x, target, *_ in data:
        twin = Small().double()
        twin.load_state_dict(model.state_dict())
        twin.train(training)
        log_softmax_loss(twin(x.double()), target).backward()
        rows.append(torch.cat([p.grad.flatten() for p in twin.parameters() if p.grad is not None]))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("training", [True, False])
def test_cosines_are_those_of_gradients_in_float64(training):
    model, data = Small(), batches(5)
    found = gradient_confusion(model, data, training=training)
    g = by_hand(model, data, training)
    norms = np.sqrt((g**2).sum(1))
    expected = [g[i] @ g[j] / norms[i] / norms[j] for i, j in itertools.combinations(range(5), 2)]
    np.testing.assert_allclose(found.cosines, expected, atol=1e-5)
    np.testing.assert_allclose(found.norms, norms, rtol=1e-5)
    assert np.std(expected) > 0.01


def test_both_modes_differ():
    data = batches(3)
    one, other = (gradient_confusion(Small(), data, training=mode).norms for mode in (True, False))
    assert not torch.allclose(one, other)


def test_numbers_of_gradients_whose_directions_are_known():
    """The loss is a scalar product with the batch, so the batch is the gradient."""
    vectors = [(1.0, 0.0), (0.0, 2.0), (-1.0, 1.0), (3.0, 0.0)]
    model = nn.Linear(2, 1, bias=False)
    data = [(torch.tensor([vector]), None) for vector in vectors]
    found = gradient_confusion(model, data, lambda output, target: output.sum())
    h = 0.5**0.5
    cosines = [0, -h, 1, h, 0, -h]
    np.testing.assert_allclose(found.cosines, cosines, atol=1e-7)
    assert found.mean == pytest.approx(np.mean(cosines))
    assert found.std == pytest.approx(np.std(cosines))
    assert found.minimum == pytest.approx(-h)
    assert found.share_negative == pytest.approx(2 / 6)
    np.testing.assert_allclose(found.norms, [1, 2, 2**0.5, 3])


def test_parts_of_the_product_are_summed(monkeypatch):
    model, data = Small(), batches(4)
    whole = gradient_confusion(model, data)
    module = sys.modules["foveal.explanation.gradient_confusion"]
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    parts = gradient_confusion(model, data)
    torch.testing.assert_close(parts.cosines, whole.cosines, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", [True, False])
def test_the_network_and_the_loss_are_left_as_they_were(mode):
    model = Small().train(mode)
    model.conv.train(not mode)
    model.head.weight.grad = torch.full_like(model.head.weight, 3.0)
    loss = OnlineLabelSmoothing(5).train(mode)
    before = {k: v.clone() for m in (model, loss) for k, v in m.state_dict().items()}
    gradient_confusion(model, batches(3), loss)
    after = {k: v for m in (model, loss) for k, v in m.state_dict().items()}
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert model.head.weight.grad.eq(3).all()
    assert model.conv.weight.grad is None
    assert (model.training, model.conv.training, loss.training) == (mode, not mode, mode)
    assert not model.frozen.requires_grad


def test_the_network_is_left_as_it_was_when_a_batch_fails():
    model = Small().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    data = [*batches(1), (torch.zeros(6, 4, 8, 8), torch.zeros(6).long())]
    with pytest.raises(RuntimeError):
        gradient_confusion(model, data)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_no_more_batches_are_drawn_than_are_looked_at():
    def endless():
        for number in itertools.count():
            assert number < 4
            yield batches(1, seed=number)[0]

    with torch.no_grad():
        found = gradient_confusion(Small(), endless(), most=4)
    assert found.cosines.shape == (6,)


def test_what_has_no_cosines():
    model = Small()
    with pytest.raises(ValueError, match="at least two batches are needed to compare, not 1"):
        gradient_confusion(model, batches(1))
    with pytest.raises(ValueError, match="most must be at least 2 batches, not 1"):
        gradient_confusion(model, batches(2), most=1)
    with pytest.raises(ValueError, match="gradient of batch 1 is zero"):
        gradient_confusion(
            nn.Linear(2, 1), [(torch.ones(1, 2), 1.0), (torch.ones(1, 2), 0.0)], scaled
        )
    with pytest.raises(ValueError, match="gradient of batch 0 is not finite"):
        gradient_confusion(nn.Linear(2, 1), [(torch.ones(1, 2), float("nan"))], scaled)
    with pytest.raises(ValueError, match="no parameter of the network is trainable"):
        gradient_confusion(nn.Linear(2, 1).requires_grad_(False), batches(2))


def scaled(output, target):
    return output.sum() * target
