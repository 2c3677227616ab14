import pytest
import torch
import torch.nn.functional as F

from foveal.layers import PyramidPooling


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 7), (13, 24)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_equals_the_description_in_float64(size, align_corners):
    torch.manual_seed(0)
    layer = PyramidPooling(8, align_corners=align_corners).double().eval()
    for reduction in layer.reductions:
        reduction[1].running_mean.normal_()
        reduction[1].running_var.uniform_(0.5, 1.5)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    truth = [x]
    for side, (conv, bn, _) in zip((1, 2, 3, 6), layer.reductions, strict=True):
        grid = torch.einsum(
            "oc,bchw->bohw", conv.weight[:, :, 0, 0], F.adaptive_avg_pool2d(x, side)
        )
        mean, var = (s[:, None, None] for s in (bn.running_mean, bn.running_var))
        grid = F.relu((grid - mean) / (var + 1e-5).sqrt())
        truth.append(F.interpolate(grid, size, mode="bilinear", align_corners=align_corners))
    torch.testing.assert_close(layer(x), torch.cat(truth, 1))


@pytest.mark.parametrize(
    ("channels", "bins", "out"), [(2048, (1, 2, 3, 6), 4096), (10, (1, 4, 8), 19), (4, (2,), 8)]
)
def test_out_channels(channels, bins, out):
    layer = PyramidPooling(channels, bins, device="meta")
    assert layer.out_channels == out
    assert layer(torch.empty(1, channels, 5, 6, device="meta")).shape == (1, out, 5, 6)


def test_parameters_at_2048_channels_are_the_measured_4_20_million():
    layer = PyramidPooling(2048, device="meta")
    assert sum(p.numel() for p in layer.parameters()) == 4 * (2048 * 512 + 2 * 512)  # 4.198 M


def test_a_single_picture_trains():
    layer = PyramidPooling(8).train()
    x = torch.randn(1, 8, 5, 5, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.isfinite().all()


def test_wrong_arguments_get_one_sentence():
    for bins in ((), (0, 2)):
        with pytest.raises(ValueError, match="bins must be sides of at least 1, not "):
            PyramidPooling(8, bins)
    with pytest.raises(ValueError, match="channels must be at least 4, one per grid, not 3"):
        PyramidPooling(3)
