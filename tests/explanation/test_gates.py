import numpy as np
import pytest
import torch
from torch import nn

from foveal.explanation import coordinate_gates
from foveal.layers import CoordinateAttention


def by_hand(layer, x):
    """Return the gates [B, C, H] and [B, C, W] from the layer's tensors, in float64."""
    w = {key: value.double().numpy() for key, value in layer.state_dict().items()}
    x = x.double().numpy()

    def gate(strip, expand):  # strip [B, C, L]
        t = np.einsum("mc,bcl->bml", w["conv1.weight"][:, :, 0, 0], strip)
        t += w["conv1.bias"][:, None]
        t = (t - w["bn1.running_mean"][:, None]) / np.sqrt(w["bn1.running_var"][:, None] + 1e-5)
        t = t * w["bn1.weight"][:, None] + w["bn1.bias"][:, None]
        t = t * np.clip(t + 3, 0, 6) / 6
        t = np.einsum("cm,bml->bcl", w[f"{expand}.weight"][:, :, 0, 0], t)
        return 1 / (1 + np.exp(-t - w[f"{expand}.bias"][:, None]))

    return gate(x.mean(3), "conv_h"), gate(x.mean(2), "conv_w")


def attention(channels, seed):
    """Return a layer in eval mode, no parameter or statistic of which is a default."""
    torch.manual_seed(seed)
    layer = CoordinateAttention(channels).eval()
    for value in layer.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.2, 1.5)
            value.mul_(
                1 if value.ndim == 1 else (-1) ** torch.arange(len(value))[:, None, None, None]
            )
    return layer


class Backwards(nn.Module):
    """Two layers that are registered in one order and run in the other."""

    def __init__(self):
        super().__init__()
        self.second = attention(6, 1)
        self.first = attention(6, 2)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        return self.second(self.pool(self.first(x)))


def test_gates_are_those_of_the_layers_parts_averaged_over_channels():
    network = Backwards()
    x = torch.randn(3, 6, 8, 10)
    first, second = coordinate_gates(network, x)
    assert (first.layer, second.layer) == ("first", "second")
    with torch.no_grad():
        inputs = (x, network.pool(network.first(x)))
    for gates, layer, seen in zip(
        (first, second), (network.first, network.second), inputs, strict=True
    ):
        gate_h, gate_w = by_hand(layer, seen)
        assert min(gate_h.std(), gate_w.std()) > 0.01
        np.testing.assert_allclose(gates.rows, gate_h.mean(1), rtol=1e-5)
        np.testing.assert_allclose(gates.columns, gate_w.mean(1), rtol=1e-5)
        product = np.einsum("bch,bcw->bhw", gate_h, gate_w) / 6
        np.testing.assert_allclose(gates.map, product, rtol=1e-5)


def test_the_network_is_left_as_it_was():
    network = Backwards()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    x = torch.randn(1, 6, 8, 8)
    coordinate_gates(network, x)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    seen = []
    handle = network.first.register_forward_hook(lambda *args: seen.append(args))
    network(x)
    handle.remove()
    assert len(seen) == 1
    assert not network.first._forward_pre_hooks
    assert not network.second._forward_pre_hooks


def test_hooks_are_removed_when_the_network_fails():
    network = Backwards()
    with pytest.raises(RuntimeError):
        coordinate_gates(network, torch.randn(1, 5, 8, 8))
    assert not network.first._forward_pre_hooks


def test_a_layer_used_twice_is_listed_twice():
    layer = attention(4, 0)
    x = torch.randn(1, 4, 3, 5)
    once, twice = coordinate_gates(nn.Sequential(layer, layer), x)
    np.testing.assert_allclose(once.rows, by_hand(layer, x)[0].mean(1), rtol=1e-5)
    assert not torch.equal(once.rows, twice.rows)


def test_lower_precision_gives_float32_numbers():
    layer = attention(8, 0)
    x = torch.randn(2, 8, 4, 6).bfloat16()
    (gates,) = coordinate_gates(layer.bfloat16(), x)
    assert gates.rows.dtype == gates.columns.dtype == gates.map.dtype == torch.float32
    np.testing.assert_allclose(gates.rows, by_hand(layer, x)[0].mean(1), atol=0.02)


def test_a_network_without_the_layer_has_no_gates_and_is_not_run():
    class Unrunnable(nn.Module):
        def forward(self, x):
            raise AssertionError

    assert coordinate_gates(Unrunnable(), torch.zeros(1, 3, 4, 4)) == []
