"""The attack against a closed form, finite differences, and what it must leave alone."""

import math

import pytest
import torch
from torch import nn

from foveal.metrics import fgsm

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def preprocessed(pixels):
    return (pixels - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


def pixels_of(x):
    return x * torch.tensor(STD).view(-1, 1, 1) + torch.tensor(MEAN).view(-1, 1, 1)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.Softplus(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 4 * 4, 5),
    )


@pytest.fixture
def pictures():
    torch.manual_seed(1)
    return preprocessed(torch.rand(7, 3, 6, 6)), torch.randint(5, (7,))


def test_a_linear_network_in_closed_form():
    """Of two classes, the gradient is a positive multiple of the other row minus the true one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    pixels, target = torch.rand(6, 3, 4, 4) * 0.8 + 0.1, torch.tensor([0, 1, 1, 0, 1, 0])
    row = model[1].weight.detach().view(2, 3, 4, 4)
    direction = (row[1 - target] - row[target]).sign()
    changed = pixels_of(fgsm(model, preprocessed(pixels), target, 0.05, mean=MEAN, std=STD))
    torch.testing.assert_close(changed, pixels + 0.05 * direction, rtol=0, atol=1e-6)


def test_the_direction_agrees_with_finite_differences(pictures):
    x, target = pictures
    model = network().double().eval()
    x = x.double()
    step = pixels_of(fgsm(model, x, target, 1e-3, mean=MEAN, std=STD)) - pixels_of(x)

    def loss(k, place, change):
        other = x[k].clone()
        other[place] += change
        return -model(other[None])[0].log_softmax(0)[target[k]].item()

    checked = 0
    for k in range(3):
        for place in [(0, 1, 2), (1, 5, 0), (2, 3, 3), (0, 0, 5)]:
            slope = (loss(k, place, 1e-6) - loss(k, place, -1e-6)) / 2e-6
            inside = 1e-3 < pixels_of(x)[(k, *place)] < 1 - 1e-3
            if abs(slope) > 1e-7 and inside:
                expected = math.copysign(1e-3, slope)
                assert step[(k, *place)].item() == pytest.approx(expected, rel=1e-6)
                checked += 1
    assert checked >= 10


def test_no_value_leaves_the_range_of_pictures(pictures):
    x, target = pictures
    changed = pixels_of(fgsm(network(), x, target, 0.4, mean=MEAN, std=STD))
    assert changed.min() >= -1e-6
    assert changed.max() <= 1 + 1e-6
    assert ((changed - pixels_of(x)).abs() <= 0.4 + 1e-6).all()
    assert (changed < 1e-6).any()
    assert (changed > 1 - 1e-6).any()


def test_strength_zero_changes_nothing(pictures):
    x, target = pictures
    torch.testing.assert_close(
        fgsm(network(), x, target, 0, mean=MEAN, std=STD), x, rtol=0, atol=1e-6
    )


def test_the_network_stays_as_it_was(pictures):
    x, target = pictures
    model = network()
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[5].bias.grad = torch.ones(5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x.requires_grad_()
    changed = fgsm(model, x, target, 0.1, mean=MEAN, std=STD)
    assert not changed.requires_grad
    assert [m.training for m in model] == [True, False, True, True, True, True]
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert [p.grad is None for p in model.parameters()] == [True] * 5 + [False]
    assert torch.equal(model[5].bias.grad, torch.ones(5))
    assert x.grad is None
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(changed, fgsm(model.eval(), x, target, 0.1, mean=MEAN, std=STD))


def test_modes_come_back_after_an_error(pictures):
    x, target = pictures
    model = network()
    with pytest.raises(RuntimeError):
        fgsm(model, x[:, :, :5], target, 0.1, mean=MEAN, std=STD)
    assert model.training
    assert model[3].training


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_it_works_where_gradients_are_off(pictures, context):
    x, target = pictures
    model = network()
    expected = fgsm(model, x, target, 0.1, mean=MEAN, std=STD)
    with context():
        # Tensors made here are inference tensors, as in Lightning's test loop.
        found = fgsm(model, x.clone(), target.clone(), 0.1, mean=MEAN, std=STD)
        assert not torch.is_grad_enabled()
    assert torch.equal(found, expected)
    assert not torch.equal(found, x)


def test_autocast_changes_nothing(pictures):
    x, target = pictures
    model = network()
    expected = fgsm(model, x, target, 0.1, mean=MEAN, std=STD)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fgsm(model, x, target, 0.1, mean=MEAN, std=STD), expected)
        assert torch.is_autocast_enabled("cpu")


def test_a_batch_of_no_pictures(pictures):
    x, target = pictures
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    assert fgsm(model, x[:0], target[:0], 0.1, mean=MEAN, std=STD).shape == (0, 3, 6, 6)


def test_a_network_that_is_very_sure_is_attacked_too():
    """Float32 would round its probability to 1 and the gradient to nothing."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    nn.init.constant_(model[1].weight[0], 50.0)
    nn.init.constant_(model[1].weight[1], 0.0)
    x = torch.full((1, 1, 1, 1), 0.6)
    assert model(x).softmax(1)[0, 0] == 1
    changed = fgsm(model, x, torch.tensor([0]), 0.1, mean=[0.0], std=[1.0])
    assert changed.item() == pytest.approx(0.5)


def test_a_picture_is_changed_alike_in_every_batch(pictures):
    x, target = pictures
    model = network()
    together = fgsm(model, x, target, 0.1, mean=MEAN, std=STD)
    alone = [
        fgsm(model, x[k : k + 1], target[k : k + 1], 0.1, mean=MEAN, std=STD) for k in range(7)
    ]
    assert torch.equal(torch.cat(alone), together)


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, math.nan])
def test_a_strength_out_of_range(pictures, epsilon):
    with pytest.raises(ValueError, match=r"epsilon must lie in \[0, 1\], not"):
        fgsm(network(), *pictures, epsilon, mean=MEAN, std=STD)


def test_another_number_of_channels(pictures):
    with pytest.raises(ValueError, match="each of the 3 channels of x, not 1 and 3"):
        fgsm(network(), *pictures, 0.1, mean=(0.5,), std=STD)
