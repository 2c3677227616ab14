"""The block against its definition in float64 NumPy, and what any layer survives."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from foveal.layers import CoordinateAttention, SandglassBlock

# in, out, then arguments: the layouts of the authors' network, and shortcuts of every kind.
LAYOUTS = {
    "full": (12, 12, {}),
    "half shortcut": (12, 12, {"identity_fraction": 0.5}),
    "no shortcut": (12, 12, {"identity_fraction": 0}),
    "wider": (12, 20, {"reduction": 2}),
    "full, stride 2": (12, 12, {"stride": 2}),
    "downsample": (12, 20, {"stride": 2, "dw_before": False}),
    "transition": (12, 20, {"dw_before": False, "dw_after": False}),
    "dilated": (12, 12, {"dilation": 2}),
}
COVERED = {"full": 12, "half shortcut": 6, "dilated": 12}  # channels with a shortcut; else none


@pytest.fixture(params=sorted(LAYOUTS))
def layout(request):
    return LAYOUTS[request.param]


def make(layout, **kw):
    """Return a block whose parameters and statistics are all away from their initial values."""
    in_channels, out_channels, args = layout
    torch.manual_seed(0)
    block = SandglassBlock(in_channels, out_channels, **args, **kw)
    with torch.no_grad():
        for key, tensor in block.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn_like(tensor)
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in key else noise * 0.8)
    return block


def picture(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def depthwise(x, weight, stride, dilation):
    """Filter each channel by its own 3x3 kernel, zeros outside, pixel by pixel."""
    batch, channels, height, width = x.shape
    rows, columns = range(0, height, stride), range(0, width, stride)
    y = np.zeros((batch, channels, len(rows), len(columns)))
    for i, j in itertools.product(range(3), range(3)):
        for a, row in enumerate(rows):
            for b, column in enumerate(columns):
                r, c = row + (i - 1) * dilation, column + (j - 1) * dilation
                if 0 <= r < height and 0 <= c < width:
                    y[:, :, a, b] += x[:, :, r, c] * weight[None, :, 0, i, j]
    return y


def formula(x, state, *, covered, stride=1, dilation=1):
    """Compute the block from the table of the specification, in evaluation mode, in float64."""
    w = {key: value.double().numpy() for key, value in state.items()}

    def norm(y, part):
        shape = (1, -1, 1, 1)
        mean, var = w[f"{part}.bn.running_mean"], w[f"{part}.bn.running_var"]
        y = (y - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5)
        return y * w[f"{part}.bn.weight"].reshape(shape) + w[f"{part}.bn.bias"].reshape(shape)

    def pointwise(y, part):
        return norm(np.einsum("oi,bihw->bohw", w[f"{part}.conv.weight"][:, :, 0, 0], y), part)

    x = x.double().numpy()
    y = x
    if "dw_before.conv.weight" in w:
        y = norm(depthwise(y, w["dw_before.conv.weight"], 1, dilation), "dw_before")
        y = np.clip(y, 0, 6)
    y = pointwise(y, "pw_reduce")
    y = np.clip(pointwise(y, "pw_expand"), 0, 6)
    if "dw_after.conv.weight" in w:
        y = norm(depthwise(y, w["dw_after.conv.weight"], stride, dilation), "dw_after")
    if covered:
        y[:, :covered] += x[:, :covered]
    return y


@pytest.mark.parametrize(
    ("name", "covered"), [*COVERED.items(), *[(name, 0) for name in LAYOUTS if name not in COVERED]]
)
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (7, 3)])
def test_equals_the_formula_in_float64(name, covered, size):
    block, args = make(LAYOUTS[name]).eval(), LAYOUTS[name][2]
    x = picture(2, 12, *size)
    strides = {key: args[key] for key in ("stride", "dilation") if key in args}
    truth = formula(x, block.state_dict(), covered=covered, **strides)
    y = block(x).detach()
    assert y.shape == truth.shape
    np.testing.assert_allclose(y, truth, rtol=0, atol=3e-6 * np.abs(truth).max())
    np.testing.assert_allclose(block.double()(x.double()).detach(), truth, rtol=1e-11, atol=1e-11)
    clipped = truth.min() >= 0 and truth.max() <= 6
    assert clipped == (name == "transition")  # a depthwise end is linear, and so is the sum


def test_relu6_occurs_twice_and_the_middle_is_linear():
    block = make(LAYOUTS["full"])
    acts = [name for name, m in block.named_modules() if isinstance(m, nn.ReLU6)]
    assert acts == ["dw_before.act", "pw_expand.act"]


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "reduction", "hidden"),
    [
        (960, 1280, 6, 208),  # 160 is less than 1280 / 6, which is 213.3, 214, rounded 208
        (96, 144, 6, 32),  # 16 is less than 24, rounded to 32
        (32, 96, 2, 16),  # 16 is not less than 16
        (288, 288, 6, 48),
        (13, 13, 6, 16),  # 2 is less than 13 / 6
        (5, 5, 6, 16),
        (40, 8, 6, 6),
        (48, 136, 2, 24),
        (1344, 1792, 6, 304),
    ],
)
def test_width_of_the_middle_is_the_measured_one(in_channels, out_channels, reduction, hidden):
    block = SandglassBlock(in_channels, out_channels, 1, reduction, device="meta")
    assert block.pw_reduce.conv.out_channels == hidden
    block = SandglassBlock(in_channels, out_channels, 1, reduction, hidden_channels=7)
    assert block.pw_reduce.conv.out_channels == block.pw_expand.conv.in_channels == 7


def test_a_fraction_1_over_n_is_the_authors_divisor_whatever_its_rounding():
    assert 49 * (1 / 49) < 1  # what a plain floor would make 0
    for n in range(1, 65):
        for channels in (n, 2 * n, 3 * n - 1, 96, 199):
            block = SandglassBlock(
                channels, channels, hidden_channels=1, identity_fraction=1 / n, device="meta"
            )
            assert block.identity_channels == channels // n, (channels, n)


def test_only_the_first_channels_receive_the_shortcut():
    block = make((12, 12, {"identity_fraction": 1 / 3})).eval()
    plain = make((12, 12, {"identity_fraction": 0})).eval()
    plain.load_state_dict(block.state_dict())
    x = picture(2, 12, 5, 6)
    torch.testing.assert_close(block(x)[:, :4], plain(x)[:, :4] + x[:, :4])
    assert torch.equal(block(x)[:, 4:], plain(x)[:, 4:])


def test_dilation_filters_what_a_stride_before_would_have_left():
    strided, dilated = make(LAYOUTS["full"]).eval(), make(LAYOUTS["dilated"]).eval()
    dilated.load_state_dict(strided.state_dict())
    for size in [(9, 7), (8, 10), (1, 1)]:
        x = picture(2, 12, *size)
        torch.testing.assert_close(dilated(x)[:, :, ::2, ::2], strided(x[:, :, ::2, ::2]))


@pytest.mark.parametrize(("position", "channels"), [("first", 12), ("last", 20)])
def test_attention_acts_after_the_first_or_the_last_depthwise_convolution(position, channels):
    block = make(
        (12, 20, {"attention": CoordinateAttention, "attention_position": position})
    ).eval()
    place = block.dw_before if position == "first" else block.dw_after
    assert list(dict(place.named_children()))[-1] == "attn"
    assert place.attn.conv1.in_channels == channels
    assert sum(isinstance(m, CoordinateAttention) for m in block.modules()) == 1
    seen = {}
    place.attn.register_forward_hook(lambda m, args, out: seen.update(x=args[0], y=out))
    x = picture(2, 12, 5, 6)
    y = block(x)
    if position == "last":
        assert torch.equal(seen["y"], y)
        torch.testing.assert_close(
            seen["x"], place.bn(place.conv(block.pw_expand(block.pw_reduce(block.dw_before(x)))))
        )
    else:
        assert seen["x"].min() >= 0  # after the activation
        torch.testing.assert_close(y, block.dw_after(block.pw_expand(block.pw_reduce(seen["y"]))))


@pytest.mark.parametrize("fraction", [1, 0.5])
def test_drop_path_drops_the_branch_where_there_is_a_shortcut(fraction):
    block = make((12, 12, {"identity_fraction": fraction, "drop_path": 0.5}))
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = picture(64, 12, 3, 3)
    covered = int(12 * fraction)
    y, whole = block(x), copy.deepcopy(block).eval()(x)
    dropped = (y == x)[:, :covered].flatten(1).all(1)
    assert 10 < dropped.sum() < 54
    torch.testing.assert_close(y[:, covered:], whole[:, covered:])
    kept = (whole - x)[~dropped][:, :covered]
    torch.testing.assert_close((y - x)[~dropped][:, :covered], 2 * kept, rtol=1e-4, atol=1e-4)


def test_norm_and_activation_are_arguments():
    def group_norm(channels, **kw):
        return nn.GroupNorm(1, channels, **kw)

    block = SandglassBlock(8, 8, norm_layer=group_norm, act_layer=nn.SiLU)
    assert sum(isinstance(m, nn.GroupNorm) for m in block.modules()) == 4
    assert sum(isinstance(m, nn.SiLU) for m in block.modules()) == 2
    assert block(torch.randn(1, 8, 1, 1)).shape == (1, 8, 1, 1)


@pytest.mark.parametrize(
    ("args", "kw", "message"),
    [
        ((0, 8), {}, "in_channels must be at least 1, not 0"),
        ((8, -1), {}, "out_channels must be at least 1, not -1"),
        ((8, 8, 0), {}, "stride must be at least 1, not 0"),
        ((8, 8, 1, 0), {}, "reduction must be at least 1, not 0"),
        ((8, 8), {"hidden_channels": 0}, "hidden_channels must be at least 1, not 0"),
        ((8, 8), {"dilation": 0}, "dilation must be at least 1, not 0"),
        ((8, 8), {"drop_path": 1.0}, r"drop_path must lie in \[0, 1\), not 1.0"),
        ((8, 8, 2), {"dw_after": False}, "stride 2 needs dw_after=True"),
        ((8, 8), {"identity_fraction": 1.5}, r"identity_fraction must lie in \[0, 1\], not 1.5"),
        ((8, 8), {"identity_fraction": float("nan")}, "identity_fraction must lie in"),
        ((8, 8, 2), {"identity_fraction": 1}, "needs stride 1 and equal channels"),
        ((8, 9), {"identity_fraction": 0.1}, "needs stride 1 and equal channels"),
        ((8, 8), {"attention_position": "middle"}, "must be 'first' or 'last', not 'middle'"),
        (
            (8, 8),
            {"attention": CoordinateAttention, "dw_after": False},
            "attention after the last depthwise convolution needs dw_after=True",
        ),
        (
            (8, 8),
            {
                "attention": CoordinateAttention,
                "attention_position": "first",
                "dw_before": False,
            },
            "attention after the first depthwise convolution needs dw_before=True",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(args, kw, message):
    with pytest.raises(ValueError, match=message) as error:
        SandglassBlock(*args, **kw)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"reduction": 2.5}, "reduction must be a whole number, not 2.5"),
        ({"reduction": True}, "reduction must be a whole number, not True"),
        ({"stride": "2"}, "stride must be a whole number, not '2'"),
        ({"identity_fraction": "1/2"}, "identity_fraction must be a number, not '1/2'"),
        ({"identity_fraction": True}, "identity_fraction must be a number, not True"),
    ],
)
def test_values_of_other_types_are_refused_in_one_sentence(kw, message):
    with pytest.raises(TypeError, match=f"^{message}$"):
        SandglassBlock(8, 8, **kw)


# What the contract tests ask of shape-preserving layers.


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 5)])
def test_any_size_and_batch(layout, batch, size):
    block, stride = make(layout), layout[2].get("stride", 1)
    shape = (batch, layout[1], *[-(-n // stride) for n in size])
    x = picture(batch, 12, *size)
    assert block.eval()(x).shape == shape
    kept = x.clone()
    if batch == 3:
        leaf = x.requires_grad_()
        y = block.train()(leaf)
        y.sum().backward()
        assert all(p.grad.isfinite().all() for p in (leaf, *block.parameters()))
        assert torch.equal(x, kept)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-2), (torch.bfloat16, 8e-2)])
def test_lower_precision_and_autocast_keep_the_type_of_the_input(layout, dtype, tolerance):
    block, x = make(layout).eval(), picture(2, 12, 9, 7)
    truth = copy.deepcopy(block).double()(x.double())
    with torch.autocast("cpu", dtype):
        for given in (x, x.to(dtype)):
            y = block(given)
            assert y.dtype == given.dtype
            assert (y - truth).abs().max() / truth.abs().max() < tolerance
    y = block.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert (y - truth).abs().max() / truth.abs().max() < tolerance


@pytest.mark.parametrize("training", [False, True])
def test_keeps_channels_last_and_computes_the_same(layout, training):
    block, x = make(layout).train(training), picture(2, 12, 9, 7)
    expected = copy.deepcopy(block)(x)
    last = block.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last.contiguous(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fraction", [1, 0.5])
def test_gradients_of_first_and_second_order(fraction):
    block = make((4, 4, {"identity_fraction": fraction, "hidden_channels": 3})).double().eval()
    x = picture(1, 4, 3, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(block, x)
    assert torch.autograd.gradgradcheck(block, x)


def test_is_deterministic_under_deterministic_algorithms(layout):
    block, x = make(layout), picture(2, 12, 8, 6)

    def gradients():
        fresh, leaf = copy.deepcopy(block), x.clone().requires_grad_()
        fresh(leaf).square().sum().backward()
        return [leaf.grad, *[p.grad for p in fresh.parameters()]]

    torch.use_deterministic_algorithms(True)
    try:
        first, second = gradients(), gradients()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_meta_device_type_and_copies(layout):
    in_channels, out_channels, args = layout
    block = SandglassBlock(in_channels, out_channels, **args, device="meta")
    assert all(t.is_meta for t in (*block.parameters(), *block.buffers()))
    assert block(torch.empty(2, in_channels, 5, 6, device="meta")).shape[:2] == (2, out_channels)
    block = SandglassBlock(in_channels, out_channels, **args, dtype=torch.float64)
    assert all(p.dtype == torch.float64 for p in block.parameters())
    block, x = make(layout).eval(), picture(2, 12, 5, 6)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(other(x), block(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripts(layout):
    block = make(layout, drop_path=0.1).eval()
    scripted = torch.jit.script(block)
    for size in [(5, 6), (1, 9), (8, 3)]:
        x = picture(2, 12, *size)
        torch.testing.assert_close(scripted(x), block(x), rtol=1e-5, atol=1e-5)


def test_exports_with_dynamic_sizes_without_scatter(layout):
    block = make(layout).eval()
    dynamic = {"x": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)}
    exported = torch.export.export(block, (picture(2, 12, 10, 14),), dynamic_shapes=dynamic)
    for shape in [(2, 10, 14), (3, 7, 5), (5, 16, 9), (2, 33, 4)]:
        x = picture(shape[0], 12, *shape[1:])
        torch.testing.assert_close(exported.module()(x), block(x), rtol=1e-5, atol=1e-5)
    operations = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert not any("scatter" in name or "copy_" in name for name in operations)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_compiles(layout, training):
    torch.compiler.reset()
    block = make(layout).train(training)
    compiled = torch.compile(copy.deepcopy(block), fullgraph=True)
    for batch in (4, 3):
        x = picture(batch, 12, 9, 7)
        torch.testing.assert_close(compiled(x), block(x), rtol=1e-4, atol=1e-5)
