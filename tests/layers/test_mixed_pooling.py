from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from foveal.layers import MixedPooling
from foveal.layers.mixed_pooling import pooled


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


def description(x, state, pool_sizes=(20, 12), align_corners=True):
    """Compute the module step by step as its description says, with torch's own pools."""

    def conv(name, x, padding=0):
        def parameter(key):
            return state[f"{name}.1.{key}"]

        x = F.conv2d(x, state[f"{name}.0.weight"], padding=padding)
        statistics = parameter("running_mean"), parameter("running_var")
        return F.batch_norm(x, *statistics, parameter("weight"), parameter("bias"), eps=1e-5)

    def enlarged(grid):
        return F.interpolate(grid, x.shape[2:], mode="bilinear", align_corners=align_corners)

    a = F.relu(conv("conv1_1", x))
    a1 = enlarged(conv("conv2_1", F.adaptive_avg_pool2d(a, pool_sizes[0]), 1))
    a2 = enlarged(conv("conv2_2", F.adaptive_avg_pool2d(a, pool_sizes[1]), 1))
    short = F.relu(conv("conv2_5", F.relu(conv("conv2_0", a, 1) + a1 + a2), 1))
    b = F.relu(conv("conv1_2", x))
    b1 = enlarged(conv("conv2_3", F.adaptive_avg_pool2d(b, (1, None)), (0, 1)))
    b2 = enlarged(conv("conv2_4", F.adaptive_avg_pool2d(b, (None, 1)), (1, 0)))
    long = F.relu(conv("conv2_6", F.relu(b1 + b2), 1))
    return F.relu(x + conv("conv3", torch.cat([short, long], 1)))


SIZES = [(1, 1), (1, 9), (8, 1), (7, 10), (20, 12), (33, 25)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [{}, {"pool_sizes": (5, 3)}, {"align_corners": False}])
def test_equals_the_description_in_float64(size, options):
    layer = filled(MixedPooling(8, **options)).double().eval()
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    truth = description(x, layer.state_dict(), **options)
    torch.testing.assert_close(layer(x), truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", [1, 2, 3, 6, 12, 20])
def test_pools_are_torchs_adaptive_ones_whether_or_not_sizes_divide(side):
    for size in [*SIZES, (40, 60), (41, 59), (3, 97)]:
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        truth = F.adaptive_avg_pool2d(x, side)
        torch.testing.assert_close(pooled(x, side), truth, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("channels", "inner"), [(1, 1), (3, 1), (7, 1), (8, 2), (1024, 256)])
def test_inner_channels_are_a_quarter_and_at_least_one(channels, inner):
    layer = MixedPooling(channels, device="meta")
    assert layer.conv1_1[0].out_channels == inner


def test_parameters_at_1024_channels_are_the_measured_4_40_million():
    layer = MixedPooling(1024, device="meta")
    reductions = 2 * 1024 * 256 + 512 * 1024  # two to a quarter, one back
    filters = (5 * 9 + 2 * 3) * 256 * 256  # 3x3 ones and strips
    norms = 2 * (9 * 256 + 1024)
    assert sum(p.numel() for p in layer.parameters()) == reductions + filters + norms == 4_397_568


def test_a_strip_trains_where_its_norm_has_one_value():
    layer = filled(MixedPooling(8)).train()
    kept = layer.conv2_4[1].running_mean.clone()
    x = torch.randn(1, 8, 1, 9, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.isfinite().all()
    assert torch.equal(layer.conv2_4[1].running_mean, kept)  # the average of the only row
    assert layer.conv2_3[1].num_batches_tracked == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_order_changes_neither_the_numbers_nor_what_tracing_and_vmap_can_do(layout):
    layer = filled(MixedPooling(8).double()).eval()
    x = torch.randn(3, 8, 6, 5, dtype=torch.float64).contiguous(memory_format=layout)
    expected = description(x, layer.state_dict())
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(layer)(x), expected)
    each = torch.vmap(lambda one: layer(one[None])[0])(x)
    torch.testing.assert_close(each, expected)


@pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs the extra export"
)
@pytest.mark.filterwarnings("ignore")
def test_runs_in_onnxruntime_at_sizes_that_the_grids_do_not_divide(tmp_path):
    import onnxruntime

    layer = filled(MixedPooling(8)).eval()
    path = tmp_path / "mixed.onnx"
    dynamic = ({0: "batch", 2: "height", 3: "width"},)
    x = torch.randn(2, 8, 23, 31)
    torch.onnx.export(layer, (x,), dynamic_shapes=dynamic, dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in [(2, 23, 31), (1, 7, 50), (3, 41, 12)]:
        x = torch.randn(size[0], 8, *size[1:])
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        truth = layer(x).detach()
        torch.testing.assert_close(torch.from_numpy(y), truth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool_sizes", [(20,), (20, 12, 6), (20, 0)])
def test_other_than_two_grids_are_refused(pool_sizes):
    with pytest.raises(ValueError, match="pool_sizes must be two sides of at least 1, not"):
        MixedPooling(8, pool_sizes)
