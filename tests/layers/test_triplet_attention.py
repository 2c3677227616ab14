import re

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foveal.layers import TripletAttention, create_layer


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


def plane_of_gates(largest, average, w, name):
    """Return the gates of one plane: [R, S] twice to [R, S], position by position."""
    kernel = w[f"{name}.conv.conv.weight"][0]
    k = kernel.shape[-1]
    rows, columns = largest.shape
    planes = np.pad([largest, average], [(0, 0), (k // 2, k // 2), (k // 2, k // 2)])
    t = np.empty((rows, columns))
    for i in range(rows):
        for j in range(columns):
            t[i, j] = (kernel * planes[:, i : i + k, j : j + k]).sum()
    t = t - w[f"{name}.conv.bn.running_mean"]
    t = t / np.sqrt(w[f"{name}.conv.bn.running_var"] + 1e-5)
    t = t * w[f"{name}.conv.bn.weight"] + w[f"{name}.conv.bn.bias"]
    return 1 / (1 + np.exp(-t))


def formula(x, state):
    """Compute the layer as the paper and its code define it, in float64, picture by picture."""
    w = {key: value.double().numpy() for key, value in state.items()}
    spatial = "hw.conv.conv.weight" in w
    x = x.double().numpy()
    y = np.empty_like(x)
    for b, picture in enumerate(x):  # [C, H, W]
        cw = plane_of_gates(picture.max(1), picture.mean(1), w, "cw")  # [C, W]
        hc = plane_of_gates(picture.max(2).T, picture.mean(2).T, w, "hc")  # [H, C]
        gate = cw[:, None, :] + hc.T[:, :, None]
        if spatial:
            gate = gate + plane_of_gates(picture.max(0), picture.mean(0), w, "hw")
        y[b] = picture * gate / (3 if spatial else 2)
    return y


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("shape", [(6, 1, 1), (5, 4, 9), (12, 9, 4)])
def test_equals_the_formula_in_float64(kernel_size, spatial, shape):
    layer = filled(TripletAttention(kernel_size, spatial)).eval()
    x = torch.randn(2, *shape) * 2 + 1
    truth = formula(x, layer.state_dict())
    np.testing.assert_allclose(layer(x).detach(), truth, rtol=0, atol=2e-6 * np.abs(truth).max())
    np.testing.assert_allclose(layer.double()(x.double()).detach(), truth, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("kernel_size", "spatial", "parameters"),
    [(7, True, 300), (3, True, 60), (7, False, 200), (3, False, 40)],
)
def test_parameters_are_the_measured_ones(kernel_size, spatial, parameters):
    layer = TripletAttention(kernel_size, spatial, device="meta")
    assert sum(p.numel() for p in layer.parameters()) == parameters


def test_keys_are_those_of_the_authors_stand_alone_layer():
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    leaves = ["conv.weight", *[f"bn.{leaf}" for leaf in bn]]
    expected = [f"{gate}.conv.{leaf}" for gate in ("cw", "hc", "hw") for leaf in leaves]
    assert list(TripletAttention().state_dict()) == expected
    assert list(TripletAttention(spatial=False).state_dict()) == expected[:12]


def test_gates_have_their_axes_and_make_the_output():
    layer = filled(TripletAttention(3)).eval()
    x = torch.randn(2, 8, 6, 9)
    gate_w, gate_h, gate_hw = layer.gates(x)
    assert gate_w.shape == (2, 8, 1, 9)
    assert gate_h.shape == (2, 8, 6, 1)
    assert gate_hw.shape == (2, 1, 6, 9)
    assert min(g.min() for g in (gate_w, gate_h, gate_hw)) > 0
    assert max(g.max() for g in (gate_w, gate_h, gate_hw)) < 1
    torch.testing.assert_close(layer(x), x * (gate_w + gate_h + gate_hw) / 3)

    without = filled(TripletAttention(3, spatial=False)).eval()
    gate_w, gate_h, nothing = without.gates(x)
    assert nothing is None
    torch.testing.assert_close(without(x), x * (gate_w + gate_h) / 2)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_of_equal_maxima_one_gets_the_gradient(axis):
    # Two entries along the axis tie for the maximum of their line. Elsewhere x is 0, and so is its
    # part in the product: there only the gate of this axis' plane moves, through the maximum (the
    # kernel's weight on the mean is 0) and through no other gate (their kernels are 0).
    layer = TripletAttention(1).eval().double()
    gate = {1: layer.hw, 2: layer.cw, 3: layer.hc}[axis]
    with torch.no_grad():
        for plane in (layer.cw, layer.hc, layer.hw):
            plane.conv.conv.weight.zero_()
        gate.conv.conv.weight[0, 0] = 1  # the maximum alone
    x = torch.zeros(1, 4, 4, 4, dtype=torch.float64)
    first, second = [0, 2, 2, 2], [0, 2, 2, 2]
    first[axis], second[axis] = 1, 3
    x[tuple(first)] = x[tuple(second)] = 2.0
    x.requires_grad_()
    layer(x).sum().backward()

    sigmoid = 1 / (1 + np.exp(-2 / np.sqrt(1 + 1e-5)))
    slope = sigmoid * (1 - sigmoid) / np.sqrt(1 + 1e-5)
    through_the_product = (0.5 + 0.5 + sigmoid) / 3
    through_the_maximum = (2 + 2) * slope / 3  # both entries are multiplied by the gate
    got = sorted([x.grad[tuple(first)].item(), x.grad[tuple(second)].item()])
    expected = [through_the_product, through_the_product + through_the_maximum]
    np.testing.assert_allclose(got, expected, rtol=1e-12)  # amax would give both the half


class FullSize(TorchDispatchMode):
    """Notes the operators that write a tensor as large as the map."""

    def __init__(self, size):
        super().__init__()
        self.size, self.seen = size, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not isinstance(out, torch.Tensor) or out.numel() != self.size:
            return out
        inputs = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        if out.untyped_storage().data_ptr() not in inputs:  # no view
            self.seen.append(func.overloadpacket.__name__)
        return out


def test_the_map_is_neither_copied_nor_multiplied_more_than_once():
    x = torch.randn(2, 16, 20, 20)
    with torch.no_grad(), FullSize(x.numel()) as full:
        TripletAttention().eval()(x)
    assert full.seen == ["add", "add", "div", "mul"]  # the mean of the gates, and the product


def test_training_statistics_move_by_a_hundredth_and_know_each_plane():
    layer = TripletAttention(1).double()
    x = torch.randn(3, 4, 5, 7, dtype=torch.float64)
    layer(x)
    planes = {
        layer.cw: torch.stack([x.amax(2), x.mean(2)], 1),
        layer.hc: torch.stack([x.amax(3), x.mean(3)], 1),
        layer.hw: torch.stack([x.amax(1), x.mean(1)], 1),
    }
    for gate, plane in planes.items():
        values = (gate.conv.conv.weight.view(1, 2, 1, 1) * plane).sum(1)
        torch.testing.assert_close(gate.conv.bn.running_mean, 0.01 * values.mean().view(1))
        torch.testing.assert_close(gate.conv.bn.running_var, 0.99 + 0.01 * values.var().view(1))
        assert gate.conv.bn.num_batches_tracked == 1


def test_gates_are_averaged_in_float32():
    # Each gate is sigmoid of its BatchNorm's shift. In float16 the sum would be rounded to
    # multiples of 2^-9 first; the mean itself has multiples of 2^-11.
    layer = TripletAttention(1).eval()
    shifts = (1.0, 1.5, 3.0)
    with torch.no_grad():
        for gate, shift in zip((layer.cw, layer.hc, layer.hw), shifts, strict=True):
            gate.conv.conv.weight.zero_()
            gate.conv.bn.bias.fill_(shift)
    y = layer.half()(torch.ones(1, 2, 2, 2, dtype=torch.float16))
    gates = [np.float16(1 / (1 + np.exp(-shift))) for shift in shifts]
    assert np.float16(sum(gates, np.float16(0)) / np.float16(3)) != np.float16(
        sum(map(float, gates)) / 3
    )
    assert (y == np.float16(sum(map(float, gates)) / 3)).all()


def test_float16_means_do_not_overflow():
    # The sum of a line is 4 * 60000, far above float16's largest value of 65504.
    layer = TripletAttention(1).eval()
    with torch.no_grad():
        for gate in (layer.cw, layer.hc, layer.hw):
            gate.conv.conv.weight[0, :, 0, 0] = torch.tensor([0.0, 1e-5])  # the mean alone
    x = torch.full((1, 4, 4, 4), 60000.0, dtype=torch.float16)
    for gate in layer.half().gates(x):
        # sigmoid(60000 * 1e-5)
        torch.testing.assert_close(
            gate.float(), torch.full_like(gate.float(), 0.6457), atol=1e-3, rtol=0
        )


def test_the_order_of_channels_matters():
    layer = filled(TripletAttention(3)).eval()
    x = torch.randn(1, 6, 5, 5)
    order = [1, 0, 2, 3, 4, 5]
    assert (layer(x[:, order]) - layer(x)[:, order]).abs().max() > 1e-3


@pytest.mark.parametrize("kernel_size", [True, 7.0, "7", None, (7, 7)])
def test_a_kernel_that_is_no_whole_number_is_refused(kernel_size):
    message = re.escape(f"kernel_size must be a whole number, not {kernel_size!r}")
    with pytest.raises(TypeError, match=f"^{message}$"):
        TripletAttention(kernel_size)


@pytest.mark.parametrize("kernel_size", [0, 4, -3])
def test_a_kernel_without_a_centre_is_refused(kernel_size):
    message = f"kernel_size must be odd and at least 1, not {kernel_size}"
    with pytest.raises(ValueError, match=message):
        TripletAttention(kernel_size)
    with pytest.raises(ValueError, match=message):
        create_layer("triplet", 8, kernel_size=kernel_size)
