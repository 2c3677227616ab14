import numpy as np
import pytest
import timm
import torch
from torch import nn

import foveal
from foveal.explanation import coordinate_gates, gate_arrays, read_gates
from foveal.layers import (
    CBAM,
    CoordinateAttention,
    ReAttention,
    SelectiveIntegration,
    SqueezeExcite,
    StripPooling,
    TripletAttention,
)


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
    return moved(CoordinateAttention(channels), seed)


def moved(layer, seed=0):
    """Return a layer in eval mode whose parameters and statistics are all drawn anew."""
    torch.manual_seed(seed)
    for value in layer.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.2, 1.5)
            signs = (-1) ** torch.arange(value.numel())
            value.mul_(1 if value.ndim == 1 else signs.view_as(value))
    return layer.eval()


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


def parameters(layer):
    return {key: value.double().numpy() for key, value in layer.state_dict().items()}


def normalised(t, w, name):
    """Return BatchNorm by the running statistics, of t [B, C, ...]."""
    shape = (-1, *[1] * (t.ndim - 2))
    mean, var, weight, bias = (
        w[f"{name}.{key}"].reshape(shape)
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (t - mean) / np.sqrt(var + 1e-5) * weight + bias


def filtered(x, weight):
    """Return x [B, C, H, W] correlated with weight [O, C, k, l], zeros around it."""
    rows, columns = weight.shape[2:]
    pads = ((0, 0), (0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, pads), (rows, columns), (2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, weight)


def triplet_by_hand(layer, x):
    """Return the planes [B, C, W], [B, C, H] and [B, H, W] from the layer's tensors."""
    w, x = parameters(layer), x.double().numpy()

    def plane(name, axis, turned=False):
        pooled = np.stack([x.max(axis), x.mean(axis)], 1)
        pooled = pooled.transpose(0, 1, 3, 2) if turned else pooled
        t = normalised(filtered(pooled, w[f"{name}.conv.conv.weight"]), w, f"{name}.conv.bn")
        found = sigmoid(t)[:, 0]
        return found.transpose(0, 2, 1) if turned else found

    return plane("cw", 2), plane("hc", 3, turned=True), plane("hw", 1)


def strip_by_hand(layer, x):
    """Return the gate [B, C, H, W] from the layer's tensors."""
    w, x = parameters(layer), x.double().numpy()
    rows = normalised(filtered(x.mean(3, keepdims=True), w["conv1.weight"]), w, "bn1")
    columns = normalised(filtered(x.mean(2, keepdims=True), w["conv2.weight"]), w, "bn2")
    cross = np.maximum(rows + columns, 0)
    mixed = np.einsum("oc,bchw->bohw", w["conv3.weight"][:, :, 0, 0], cross)
    return sigmoid(mixed + w["conv3.bias"][:, None, None])


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
    network.train()
    network.first.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    x = torch.randn(1, 6, 8, 8)
    coordinate_gates(network, x)
    assert network.training
    assert network.second.bn1.training
    assert not network.first.training
    assert not network.first.bn1.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    seen = []
    handle = network.first.register_forward_hook(lambda *args: seen.append(args))
    network(x)
    handle.remove()
    assert len(seen) == 1
    assert not network.first._forward_pre_hooks
    assert not network.second._forward_pre_hooks


def test_hooks_are_removed_when_the_network_fails():
    network = Backwards().train()
    with pytest.raises(RuntimeError):
        coordinate_gates(network, torch.randn(1, 5, 8, 8))
    assert not network.first._forward_pre_hooks
    assert all(module.training for module in network.modules())


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


def test_triplet_gates_are_three_planes_and_their_mean():
    layer = moved(TripletAttention(3))
    x = torch.randn(2, 6, 5, 8)
    (gates,) = read_gates(layer, x)
    cw, hc, hw = triplet_by_hand(layer, x)
    assert gates.kind == "triplet"
    for name, plane in (("cw", cw), ("hc", hc), ("hw", hw)):
        assert plane.std() > 0.01
        np.testing.assert_allclose(gates.parts[name], plane, rtol=1e-4)
    np.testing.assert_allclose(gates.rows, hc.mean(1), rtol=1e-4)
    np.testing.assert_allclose(gates.columns, cw.mean(1), rtol=1e-4)
    factor = (cw[:, :, None] + hc[..., None] + hw[:, None]) / 3  # of each channel and place
    np.testing.assert_allclose(gates.map, factor.mean(1), rtol=1e-4)


def test_the_map_of_triplet_attention_is_the_factor_of_its_output():
    layer = moved(TripletAttention(3, spatial=False))
    x = torch.rand(2, 6, 5, 8) + 0.5
    (gates,) = read_gates(layer, x)
    assert list(gates.parts) == ["cw", "hc"]
    with torch.no_grad():
        np.testing.assert_allclose(gates.map, (layer(x) / x).mean(1), rtol=1e-4)


def test_strip_gates_are_averaged():
    layer = moved(StripPooling(6))
    x = torch.randn(2, 6, 5, 8)
    (gates,) = read_gates(layer, x)
    gate = strip_by_hand(layer, x)
    assert gate.mean(1).std() > 0.001
    np.testing.assert_allclose(gates.map, gate.mean(1), rtol=1e-4)
    np.testing.assert_allclose(gates.parts["channels"], gate.mean((2, 3)), rtol=1e-4)
    assert gates.rows is None
    assert gates.columns is None


@pytest.mark.parametrize("make", [SqueezeExcite, timm.layers.SqueezeExcite, timm.layers.SEModule])
def test_squeeze_and_excitation_is_the_factor_of_its_output(make):
    layer = moved(make(16))
    x = torch.rand(3, 16, 4, 6) + 0.5
    (gates,) = read_gates(layer, x)
    assert (gates.kind, gates.map) == ("se", None)
    with torch.no_grad():
        np.testing.assert_allclose(gates.parts["channels"], (layer(x) / x)[:, :, 0, 0], rtol=1e-4)
    assert not layer.gate._forward_hooks


def test_squeeze_and_excitation_of_timm_networks_is_found():
    network = timm.create_model("efficientnet_lite0", num_classes=2)
    assert read_gates(network, torch.rand(1, 3, 32, 32)) == []
    network = timm.create_model("mobilenetv3_small_050", num_classes=2)
    found = read_gates(network, torch.rand(1, 3, 32, 32))
    assert {gates.kind for gates in found} == {"se"}
    assert len(found) == 9


def test_cbam_is_the_factor_of_its_output():
    layer = moved(CBAM(16, 4))
    x = torch.rand(2, 16, 6, 9) + 0.5
    (gates,) = read_gates(layer, x)
    with torch.no_grad():
        factor = layer(x) / x
    parts = gates.parts["channels"][:, :, None, None] * gates.parts["places"][:, None]
    np.testing.assert_allclose(parts, factor, rtol=1e-4)
    np.testing.assert_allclose(gates.map, factor.mean(1), rtol=1e-4)


def test_choices_of_levels_are_those_that_count():
    torch.manual_seed(0)
    network = foveal.create_model("dfi", backbone="test_efficientnet", width=16).eval()
    x = torch.rand(2, 3, 40, 48)
    found = read_gates(network, x, ("selection",))
    with torch.no_grad():
        whole = network.gates(x)  # task → [B, scales, levels]
    assert [gates.layer for gates in found] == [f"decoder.dfims.{k}" for k in range(len(found))]
    for scale, gates in enumerate(found):
        assert gates.kind == "selection"
        for task in ("saliency", "edge", "skeleton"):
            weights, selected = gates.parts[task], gates.parts[f"{task}_selected"]
            np.testing.assert_allclose(weights, whole[task][:, scale], rtol=1e-5)
            best = np.argsort(-weights.numpy(), 1, kind="stable")[:, :3]
            assert selected.sum(1).tolist() == [3, 3]
            assert np.take_along_axis(selected.numpy(), best, 1).all()


def test_tasks_that_are_not_asked_for_have_no_choices():
    layer = SelectiveIntegration((8, 8), 16, ("edge", "saliency"), selected=1).eval()

    class Edges(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(levels=[x, x], tasks=["edge"])

    (gates,) = read_gates(Edges(), torch.rand(2, 8, 4, 4))
    assert list(gates.parts) == ["edge", "edge_selected"]


def test_layers_without_gates_are_left_out():
    whole = SelectiveIntegration((8, 8), 16, ("edge",), selected=None)

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = whole

        def forward(self, x):
            return self.layer([x, x])

    assert read_gates(Sum(), torch.rand(2, 8, 4, 4)) == []
    assert read_gates(ReAttention(16, 4, apply_transform=False), torch.rand(1, 3, 16)) == []


def test_theta_is_a_copy():
    layer = moved(ReAttention(16, 4))
    (gates,) = read_gates(layer, torch.rand(1, 3, 16))
    theta = layer.reatten_matrix.weight.detach()[:, :, 0, 0].clone()
    with torch.no_grad():
        layer.reatten_matrix.weight.zero_()
    assert torch.equal(gates.parts["theta"], theta)
    assert gates.parts["bias"].shape == (4,)
    assert gates.map is None


def test_layers_of_several_kinds_come_in_their_order_and_can_be_chosen():
    network = nn.Sequential(StripPooling(8), CoordinateAttention(8), TripletAttention())
    x = torch.rand(2, 8, 6, 5)
    assert [gates.kind for gates in read_gates(network, x)] == ["strip", "coordinate", "triplet"]
    chosen = read_gates(network, x, ("triplet", "strip"))
    assert [gates.layer for gates in chosen] == ["0", "2"]
    with pytest.raises(ValueError, match=r"'tripled'.*did you mean 'triplet'"):
        read_gates(network, x, ("tripled",))


@pytest.mark.parametrize("layer", ["coordinate", "triplet", "strip", "se", "cbam"])
def test_inserted_layers_are_found(layer):
    network = timm.create_model("test_resnet", num_classes=2)
    foveal.insert(network, layer, where="stages", identity=True)
    found = read_gates(network, torch.rand(1, 3, 64, 64))
    assert [gates.layer for gates in found] == [f"layer{k}.0.inserted.layer" for k in range(1, 5)]
    assert {gates.kind for gates in found} == {layer}
    values = [value for gates in found for value in gates.parts.values()]
    assert all(0 < float(value.min()) <= float(value.max()) < 1 for value in values)


def test_a_compiled_network_is_read():
    network = nn.Sequential(attention(6, 0), nn.Conv2d(6, 6, 1))
    x = torch.randn(2, 6, 4, 5)
    (plain,) = read_gates(network, x)
    compiled = torch.compile(network)
    (gates,) = read_gates(compiled, x)
    assert torch.equal(gates.map, plain.map)
    assert gates.layer == "_orig_mod.0"


def test_autocast_and_channels_last_give_float32_numbers():
    network = nn.Sequential(moved(StripPooling(8)), moved(TripletAttention(3)))
    x = torch.randn(2, 8, 6, 5)
    plain = read_gates(network, x)
    with torch.autocast("cpu", torch.bfloat16):
        low = read_gates(
            network.to(memory_format=torch.channels_last),
            x.to(memory_format=torch.channels_last),
        )
    for one, other in zip(plain, low, strict=True):
        assert other.map.dtype == torch.float32
        np.testing.assert_allclose(other.map, one.map, atol=0.03)


def test_a_network_may_change_its_input_in_place():
    network = nn.Sequential(nn.ReLU(inplace=True), moved(StripPooling(8)))
    x = torch.randn(2, 8, 6, 5)
    given = x.clone()
    read_gates(network, given)
    assert torch.equal(given, x)


def test_arrays_have_names_of_their_own(tmp_path):
    layer = attention(4, 0)
    gates = read_gates(nn.Sequential(layer, layer), torch.randn(3, 4, 3, 5))
    np.savez(tmp_path / "gates.npz", **gate_arrays(gates))
    with np.load(tmp_path / "gates.npz") as arrays:
        shapes = {name: arrays[name].shape for name in arrays}
        assert np.array_equal(arrays["0#2/map"], gates[1].map)
        assert arrays["0/map"].dtype == np.float32
    own = {"rows": (3, 3), "columns": (3, 5), "map": (3, 3, 5)}
    own |= {"parts/rows": (3, 4, 3), "parts/columns": (3, 4, 5)}
    assert shapes == {f"{name}/{key}": own[key] for name in ("0", "0#2") for key in own}
