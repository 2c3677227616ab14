import numpy as np
import pytest
import torch
from timm.layers.coord_attn import CoordAttn

from foveal.layers import CoordinateAttention


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
    """Compute the layer as the paper and its code define it, in float64, pixel by pixel."""
    w = {key: value.double().numpy() for key, value in state.items()}
    batch, _, height, width = x.shape
    x = x.double().numpy()
    squeeze = w["conv1.weight"][:, :, 0, 0]
    y = np.empty_like(x)
    for b in range(batch):
        joined = np.concatenate([x[b].mean(axis=2), x[b].mean(axis=1)], axis=1)  # [C, H + W]
        t = squeeze @ joined + w["conv1.bias"][:, None]
        t = (t - w["bn1.running_mean"][:, None]) / np.sqrt(w["bn1.running_var"][:, None] + 1e-5)
        t = t * w["bn1.weight"][:, None] + w["bn1.bias"][:, None]
        t = t * np.minimum(np.maximum(t + 3, 0), 6) / 6
        gate_h = w["conv_h.weight"][:, :, 0, 0] @ t[:, :height] + w["conv_h.bias"][:, None]
        gate_w = w["conv_w.weight"][:, :, 0, 0] @ t[:, height:] + w["conv_w.bias"][:, None]
        gate_h, gate_w = 1 / (1 + np.exp(-gate_h)), 1 / (1 + np.exp(-gate_w))
        for i in range(height):
            for j in range(width):
                y[b, :, i, j] = x[b, :, i, j] * gate_w[:, j] * gate_h[:, i]
    return y


@pytest.mark.parametrize(("channels", "reduction"), [(6, 32), (40, 4), (96, 8)])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (9, 4)])
def test_equals_the_formula_in_float64(channels, reduction, size):
    layer = filled(CoordinateAttention(channels, reduction)).eval()
    x = torch.randn(2, channels, *size) * 2 + 1
    truth = formula(x, layer.state_dict())
    np.testing.assert_allclose(layer(x).detach(), truth, rtol=0, atol=2e-6 * np.abs(truth).max())
    np.testing.assert_allclose(layer.double()(x.double()).detach(), truth, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("channels", [6, 64, 576])
@pytest.mark.parametrize("training", [False, True])
def test_equals_timms_layer_with_the_official_bottleneck(channels, training):
    layer = filled(CoordinateAttention(channels)).train(training)
    other = CoordAttn(channels, rd_channels=max(8, channels // 32), bias=True).train(training)
    other.load_state_dict(layer.state_dict(), strict=True)
    x, leaf = (torch.randn(3, channels, 7, 5, generator=torch.manual_seed(3)) for _ in range(2))
    y, truth = layer(x.requires_grad_()), other(leaf.requires_grad_())
    assert ((y - truth).abs().max() / truth.abs().max()).item() < 2e-6
    y.square().sum().backward()
    truth.square().sum().backward()
    assert ((x.grad - leaf.grad).abs().max() / leaf.grad.abs().max()).item() < 2e-6
    for key, value in other.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "reduction", "bottleneck"),
    [(384, 32, 12), (576, 32, 18), (960, 32, 30), (64, 32, 8), (6, 32, 8), (320, 16, 20)],
)
def test_bottleneck_is_a_floor_division_with_a_floor_of_8(channels, reduction, bottleneck):
    layer = CoordinateAttention(channels, reduction, device="meta")
    assert layer.conv1.out_channels == bottleneck
    parameters = sum(p.numel() for p in layer.parameters())
    assert parameters == 3 * channels * bottleneck + 2 * channels + 3 * bottleneck


def test_parameters_at_64_channels_are_the_measured_1688():
    assert sum(p.numel() for p in CoordinateAttention(64).parameters()) == 1688


def test_gates_vary_along_their_own_axis_only():
    layer = filled(CoordinateAttention(8)).eval()
    x = torch.randn(2, 8, 6, 9)
    gate_h, gate_w = layer.gates(x)
    assert gate_h.shape == (2, 8, 6, 1)
    assert gate_w.shape == (2, 8, 1, 9)
    assert min(gate_h.min(), gate_w.min()) > 0
    assert max(gate_h.max(), gate_w.max()) < 1
    torch.testing.assert_close(layer(x), x * gate_h * gate_w)
    # Exchanging two rows exchanges their gates and leaves the columns' alone.
    swapped = [1, 0, 2, 3, 4, 5]
    rows, columns = layer.gates(x[:, :, swapped])
    torch.testing.assert_close(rows, gate_h[:, :, swapped])
    torch.testing.assert_close(columns, gate_w)


def test_training_statistics_are_those_of_rows_and_columns_together():
    layer = CoordinateAttention(4).double()
    x = torch.randn(3, 4, 5, 7, dtype=torch.float64)
    layer(x)
    joined = torch.cat([x.mean(3), x.mean(2)], dim=2)  # [B, C, H + W]
    squeezed = torch.einsum("mc,bcp->mbp", layer.conv1.weight[:, :, 0, 0], joined)
    squeezed = (squeezed + layer.conv1.bias[:, None, None]).flatten(1)
    assert squeezed.shape[1] == 3 * (5 + 7)
    torch.testing.assert_close(layer.bn1.running_mean, 0.1 * squeezed.mean(1))
    torch.testing.assert_close(layer.bn1.running_var, 0.9 + 0.1 * squeezed.var(1))
    assert layer.bn1.num_batches_tracked == 1


def test_float16_means_do_not_overflow():
    # The sum of a row is 4 * 60000, far above float16's largest value of 65504.
    x = torch.full((1, 8, 3, 4), 60000.0, dtype=torch.float16)
    layer = CoordinateAttention(8).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.bn1.weight.fill_(1)
        layer.conv1.weight[0, 0] = 1e-5
        layer.conv_h.weight[:, 0] = 1
    gate_h, _ = layer.half().gates(x)
    # The squeeze is 0.6, its hard-swish 0.6 * 3.6 / 6 = 0.36, the gate sigmoid(0.36).
    torch.testing.assert_close(gate_h.float(), torch.full((1, 8, 3, 1), 0.5890), atol=1e-3, rtol=0)


def test_normalisation_is_an_argument():
    def group_norm(channels, **kw):
        return torch.nn.GroupNorm(1, channels, **kw)

    layer = CoordinateAttention(8, norm_layer=group_norm)
    assert isinstance(layer.bn1, torch.nn.GroupNorm)
    assert layer(torch.randn(1, 8, 1, 1)).shape == (1, 8, 1, 1)


def test_a_reduction_below_1_is_refused():
    with pytest.raises(ValueError, match="reduction must be at least 1, not 0"):
        CoordinateAttention(8, 0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_order_changes_neither_the_formula_nor_what_tracing_and_vmap_can_do(layout):
    layer = filled(CoordinateAttention(8).double()).eval()
    x = torch.randn(3, 8, 6, 5, dtype=torch.float64).contiguous(memory_format=layout)
    expected = torch.from_numpy(formula(x, layer.state_dict()))
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(layer)(x), expected)
    each = torch.vmap(lambda one: layer(one[None])[0])(x)
    torch.testing.assert_close(each, expected)
