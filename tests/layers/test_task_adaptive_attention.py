import copy

import pytest
import torch
import torch.nn.functional as F

from foveal.layers import TaskAdaptiveAttention


def filled(layer):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return layer


def norm(x, weight, bias, groups):
    """GroupNorm, group by group."""
    parts = []
    for part in x.chunk(groups, dim=1):
        mean = part.mean((1, 2, 3), keepdim=True)
        variance = (part - mean).square().mean((1, 2, 3), keepdim=True)
        parts.append((part - mean) / (variance + 1e-5).sqrt())
    return torch.cat(parts, 1) * weight.view(-1, 1, 1) + bias.view(-1, 1, 1)


def description(x, state):
    """Compute the module step by step as its description says."""
    channels = x.shape[1]
    inner = channels // 4

    def step(x, name, number, groups, padding=0):
        x = F.conv2d(x, state[f"{name}.{number}.weight"], padding=padding)
        affine = (state[f"{name}.{number + 1}.{key}"] for key in ("weight", "bias"))
        return norm(x, *affine, groups)

    a = F.relu(step(x, "attention", 0, max(1, inner // 4)))
    a = 1 / (1 + (-step(a, "attention", 3, inner)).exp())
    return F.relu(step(x + x * a, "block", 0, inner, padding=1))


SIZES = [(1, 1), (1, 9), (7, 1), (6, 5)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [16, 32])
def test_equals_the_description_in_float64(channels, size):
    layer = filled(TaskAdaptiveAttention(channels)).double()
    x = torch.randn(3, channels, *size, dtype=torch.float64)
    torch.testing.assert_close(layer(x), description(x, layer.state_dict()), rtol=1e-12, atol=1e-12)


def test_the_gate_is_for_each_place_and_channel():
    layer, x = filled(TaskAdaptiveAttention(16)), torch.randn(2, 16, 4, 5)
    gate = layer.gate(x)
    assert gate.shape == x.shape
    assert ((gate > 0) & (gate < 1)).all()
    torch.testing.assert_close(layer(x), F.relu(layer.block(x + x * gate)))


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_any_number_of_channels(channels):
    x = torch.randn(2, channels, 5, 6)
    assert TaskAdaptiveAttention(channels)(x).shape == x.shape


def test_batch_neighbours_do_not_matter_and_the_input_stays():
    layer, x = filled(TaskAdaptiveAttention(16)), torch.randn(4, 16, 6, 5)
    kept = x.clone()
    y = layer(x)
    assert torch.equal(x, kept)
    torch.testing.assert_close(y, torch.cat([layer(one[None]) for one in x]), rtol=1e-5, atol=1e-6)
    assert layer(x[:0]).shape == (0, 16, 6, 5)


def test_first_derivatives():
    layer = filled(TaskAdaptiveAttention(4)).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision(dtype):
    layer, x = filled(TaskAdaptiveAttention(16)), torch.randn(2, 16, 6, 5)
    truth = copy.deepcopy(layer).double()(x.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    bound = 5e-2 if dtype == torch.bfloat16 else 2e-6
    assert (y - truth).abs().max() / truth.abs().max() < bound


def test_no_channels_are_refused():
    with pytest.raises(ValueError, match="channels must be at least 1, not 0"):
        TaskAdaptiveAttention(0)
