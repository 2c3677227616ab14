import numpy as np
import pytest
import torch
from torch import nn

from foveal.layers import StripPooling
from foveal.layers.strip_pooling import BatchNormOfMeans


def filled(layer, seed=0):
    """Give every parameter and statistic a value of its own."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, tensor in layer.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.rand_like(tensor) + 0.5
                    if "var" in key
                    else torch.randn_like(tensor) * 0.3
                )
    return layer


def formula(x, state):
    """Compute the gate as the paper and its code define it, in float64, place by place."""
    w = {key: value.double().numpy() for key, value in state.items()}
    x = x.double().numpy()
    batch, _, height, width = x.shape

    def normalised(t, bn):
        mean, var = w[f"{bn}.running_mean"], w[f"{bn}.running_var"]
        return (t - mean) / np.sqrt(var + 1e-5) * w[f"{bn}.weight"] + w[f"{bn}.bias"]

    def filtered(strip, kernel):  # strip [C, L], kernel [O, C, 3], padded with zeros
        padded = np.pad(strip, ((0, 0), (1, 1)))
        return [np.einsum("oct,ct->o", kernel, padded[:, i : i + 3]) for i in range(strip.shape[1])]

    gate = np.empty((batch, len(w["conv3.bias"]), height, width))
    for b in range(batch):
        rows = filtered(x[b].mean(axis=2), w["conv1.weight"][:, :, :, 0])
        columns = filtered(x[b].mean(axis=1), w["conv2.weight"][:, :, 0, :])
        for i in range(height):
            for j in range(width):
                t = normalised(rows[i], "bn1") + normalised(columns[j], "bn2")
                t = w["conv3.weight"][:, :, 0, 0] @ np.maximum(t, 0) + w["conv3.bias"]
                gate[b, :, i, j] = 1 / (1 + np.exp(-t))
    return gate


@pytest.mark.parametrize(("channels", "gates"), [(6, None), (8, 3), (3, 8)])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (9, 4), (1, 6)])
def test_the_gate_equals_the_formula_in_float64(channels, gates, size):
    layer = filled(StripPooling(channels, gates)).eval()
    x = torch.randn(2, channels, *size) * 2 + 1
    truth = formula(x, layer.state_dict())
    np.testing.assert_allclose(layer.gate(x).detach(), truth, rtol=0, atol=2e-6)
    gate = layer.double().gate(x.double()).detach()
    np.testing.assert_allclose(gate, truth, rtol=1e-12, atol=1e-13)
    if gates is None:
        y = layer(x.double()).detach()
        np.testing.assert_allclose(y, x.double().numpy() * truth, rtol=1e-12, atol=1e-13)


def test_a_place_sees_its_row_and_its_column_and_their_neighbours_only():
    layer = filled(StripPooling(4)).eval()
    x = torch.randn(1, 4, 9, 11)
    before = layer.gate(x)
    x[0, :, 2, 3] += 5.0
    changed = (layer.gate(x) - before).abs().amax((0, 1)) > 1e-7
    expected = torch.zeros(9, 11, dtype=torch.bool)
    expected[1:4], expected[:, 2:5] = True, True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize(("channels", "parameters"), [(512, 1_837_568), (64, 28_992)])
def test_parameters(channels, parameters):
    layer = StripPooling(channels, device="meta")
    assert sum(p.numel() for p in layer.parameters()) == parameters
    # Two filters of three, a 1x1 convolution with bias, two norms.
    assert parameters == 7 * channels**2 + 5 * channels


def test_statistics_in_training_are_those_of_rows_and_of_columns():
    layer = filled(StripPooling(3)).double()
    kept = {key: value.clone() for key, value in layer.state_dict().items()}
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    layer(x)
    rows = nn.functional.conv2d(x.mean(3, keepdim=True), layer.conv1.weight, padding=(1, 0))
    columns = nn.functional.conv2d(x.mean(2, keepdim=True), layer.conv2.weight, padding=(0, 1))
    for bn, strips in (("bn1", rows), ("bn2", columns)):
        mean, var = strips.mean((0, 2, 3)), strips.var((0, 2, 3))
        state = layer.state_dict()
        old_mean, old_var = kept[f"{bn}.running_mean"], kept[f"{bn}.running_var"]
        torch.testing.assert_close(state[f"{bn}.running_mean"], 0.9 * old_mean + 0.1 * mean)
        torch.testing.assert_close(state[f"{bn}.running_var"], 0.9 * old_var + 0.1 * var)
        assert state[f"{bn}.num_batches_tracked"] == 1


def test_a_single_strip_trains_with_the_running_statistics_and_leaves_them():
    layer = filled(StripPooling(3)).train()
    kept = {key: value.clone() for key, value in layer.state_dict().items()}
    x = torch.randn(1, 3, 1, 1, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert x.grad.isfinite().all()
    assert all(torch.equal(value, kept[key]) for key, value in layer.state_dict().items())
    torch.testing.assert_close(y, layer.eval()(x))


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
def test_the_norm_is_batchnorm_where_that_runs(momentum):
    ours, theirs = BatchNormOfMeans(5), nn.BatchNorm2d(5)
    ours.momentum = theirs.momentum = momentum
    filled(theirs)
    theirs.num_batches_tracked.zero_()
    ours.load_state_dict(theirs.state_dict())
    for seed in range(3):
        x = torch.randn(2, 5, 3, 4, generator=torch.manual_seed(seed))
        assert torch.equal(ours.train()(x), theirs.train()(x))
        assert torch.equal(ours.eval()(x), theirs.eval()(x))
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(ours), nn.SyncBatchNorm)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_order_changes_neither_the_formula_nor_what_tracing_and_vmap_can_do(layout):
    layer = filled(StripPooling(4).double()).eval()
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64).contiguous(memory_format=layout)
    expected = x * torch.from_numpy(formula(x, layer.state_dict()))
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(layer)(x), expected)
    each = torch.vmap(lambda one: layer(one[None])[0])(x)
    torch.testing.assert_close(each, expected)


def test_gates_of_other_channels_are_not_multiplied():
    layer = StripPooling(8, gate_channels=4)
    with pytest.raises(ValueError, match="8 channels cannot be multiplied by 4 gates: leave gate_"):
        layer(torch.rand(1, 8, 3, 3))
    with pytest.raises(ValueError, match="gate_channels must be at least 1, not 0"):
        StripPooling(8, gate_channels=0)
