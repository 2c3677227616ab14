import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabV3

from foveal.models import create_model

CONVS = ("head.aspp.convs.1.0", "head.aspp.convs.2.0", "head.aspp.convs.3.0")


# Millions of parameters that the README of the official code of coordinate attention states for
# Cityscapes, 19 classes.
@pytest.mark.parametrize(
    ("attention", "published"), [("", 4.5), ("_se", 4.9), ("_cbam", 4.9), ("_coordinate", 5.0)]
)
def test_sizes_on_mobilenetv2_are_the_published_ones(attention, published):
    with torch.device("meta"):
        net = create_model("deeplabv3", backbone=f"mobilenetv2_100{attention}", num_classes=19)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == published


@pytest.mark.parametrize(
    ("output_stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))]
)
def test_rates_follow_the_stride(output_stride, rates):
    with torch.device("meta"):
        net = create_model("deeplabv3", output_stride=output_stride)
    assert [net.get_submodule(c).dilation for c in CONVS] == [(r, r) for r in rates]


def test_computes_what_torchvisions_network_does_but_for_its_last_3x3_convolution():
    torch.manual_seed(0)
    ours = create_model("deeplabv3", backbone="resnet50", output_stride=8, num_classes=3).eval()
    trunk = resnet50(replace_stride_with_dilation=[False, True, True])
    trunk.load_state_dict(ours.backbone.model.state_dict(), strict=False)
    aspp = ASPP(2048, (12, 24, 36))
    aspp.load_state_dict(ours.head.aspp.state_dict())
    classifier = nn.Sequential(aspp, copy.deepcopy(ours.head.classifier))
    theirs = DeepLabV3(IntermediateLayerGetter(trunk, {"layer4": "out"}), classifier).eval()
    x = torch.rand(2, 3, 65, 50)
    with torch.no_grad():
        y = theirs(x)["out"]
        torch.testing.assert_close(ours(x), y, rtol=1e-4, atol=1e-4 * y.abs().max().item())


def test_separable_convolutions_are_depthwise_then_pointwise():
    with torch.device("meta"):
        net = create_model("deeplabv3", separable=True, output_stride=8)
    for name, rate in zip(CONVS, (12, 24, 36), strict=True):
        depthwise, norm, _, pointwise = net.get_submodule(name)
        assert depthwise.groups == depthwise.in_channels == norm.num_features == 320
        assert (depthwise.dilation, depthwise.padding) == ((rate, rate), (rate, rate))
        assert pointwise.weight.shape == (256, 320, 1, 1)


def test_separable_is_a_flag():
    with pytest.raises(TypeError, match="separable must be True or False, not 1"):
        create_model("deeplabv3", separable=1)
