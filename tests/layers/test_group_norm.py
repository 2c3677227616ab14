import pytest
import torch
from torch import nn

from foveal.layers.group_norm import conv_norm, group_norm, narrowed


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(4, 1), (8, 2), (32, 8), (64, 16), (128, 32), (256, 32), (512, 32), (3, 1), (1, 1)],
)
def test_groups_are_of_four_channels_and_at_most_32(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("channels", [5, 13, 18, 30, 100, 136, 200, 257])
def test_any_number_of_channels_is_divided(channels):
    groups = group_norm(channels).num_groups
    assert channels % groups == 0
    assert 1 <= groups <= min(channels // 4, 32)
    larger = range(groups + 1, min(channels // 4, 32) + 1)
    assert not any(channels % n == 0 for n in larger)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_convolution_keeps_the_size_and_has_no_bias(kernel_size):
    conv, norm = conv_norm(6, 8, kernel_size)
    assert conv.bias is None
    assert norm(conv(torch.rand(2, 6, 5, 7))).shape == (2, 8, 5, 7)


def test_a_quarter_of_the_channels_is_between():
    layer = narrowed(32, dtype=torch.float64)
    assert [tuple(m.weight.shape[:2]) for m in layer if isinstance(m, nn.Conv2d)] == [
        (8, 32),
        (32, 8),
    ]
    assert all(p.dtype == torch.float64 for p in layer.parameters())
    assert all(p.is_meta for p in narrowed(3, device="meta").parameters())
