import pytest
import torch

from foveal.layers import CBAM, SqueezeExcite


def test_squeeze_excite_equals_its_formula():
    torch.manual_seed(0)
    layer, x = SqueezeExcite(12, reduction=3).double(), torch.randn(2, 12, 4, 5).double()
    squeezed = x.mean((2, 3)) @ layer.fc1.weight[:, :, 0, 0].T + layer.fc1.bias
    gate = torch.sigmoid(squeezed.clamp(min=0) @ layer.fc2.weight[:, :, 0, 0].T + layer.fc2.bias)
    torch.testing.assert_close(layer(x), x * gate[:, :, None, None])


def test_cbam_equals_its_formula():
    torch.manual_seed(0)
    layer, x = CBAM(12, reduction=3).double().eval(), torch.randn(2, 12, 9, 8).double()
    fc1, fc2 = layer.channel.fc1, layer.channel.fc2

    def perceptron(v):
        hidden = (v @ fc1.weight[:, :, 0, 0].T + fc1.bias).clamp(min=0)
        return hidden @ fc2.weight[:, :, 0, 0].T + fc2.bias

    y = x * torch.sigmoid(perceptron(x.mean((2, 3))) + perceptron(x.amax((2, 3))))[:, :, None, None]
    strips = torch.stack([y.mean(1), y.amax(1)], dim=1)
    kernel = layer.spatial.conv.conv.weight
    assert kernel.shape == (1, 2, 7, 7)
    place = torch.nn.functional.conv2d(strips, kernel, padding=3) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(layer(x), y * torch.sigmoid(place))


@pytest.mark.parametrize("layer", [SqueezeExcite, CBAM])
def test_the_squeezed_width_is_the_nearest_whole_number(layer):
    def width(channels, reduction):
        module = layer(channels, reduction)
        return getattr(module, "channel", module).fc1.out_channels

    assert width(96, 24) == 4  # timm's own rounding would give 8
    assert width(144, 24) == 6
    assert width(100, 24) == 4
    assert width(8, 24) == 1


@pytest.mark.parametrize("layer", [SqueezeExcite, CBAM])
def test_a_reduction_below_1_is_refused(layer):
    with pytest.raises(ValueError, match="reduction must be at least 1, not 0"):
        layer(8, 0)
