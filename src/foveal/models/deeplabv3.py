"""DeepLabV3: atrous spatial pyramid pooling on any backbone.

The pyramid is torchvision's. As in the paper, its output goes to the classifier directly;
torchvision's own networks have one more 3x3 convolution between.

Sources: Chen et al. 2017, arXiv:1706.05587, section 3.3; Chen et al. 2018, arXiv:1802.02611,
section 3.1, for the depthwise-separable pyramid.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from foveal.layers.strip_pooling import BatchNormOfMeans
from foveal.models.options import check_flag
from foveal.models.segmentation_backbone import segmentation_backbone
from foveal.models.segmentation_network import SegmentationNetwork, check_num_classes

_CHANNELS = 256
_RATES = (6, 12, 18)  # at stride 16; a map of stride 8 has twice of them


def deeplabv3(
    *,
    backbone: str = "mobilenetv2_100_coordinate",
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    output_stride: int = 16,
    separable: bool = False,
    backbone_args: Mapping[str, Any] | None = None,
    backbone_checkpoint: str | Path = "",
) -> SegmentationNetwork:
    """Build DeepLabV3.

    Args:
        backbone: any classification network.
        pretrained: load the backbone's published weights.
        num_classes: K; None gives 21.
        in_chans: channels of the picture.
        output_stride: of the map that the head sees, 8 or 16 in the paper, 32 also; the pyramid's
            dilations are 6, 12 and 18 at 16, twice of that at 8 and half of it at 32.
        separable: depthwise-separable 3x3 convolutions in the pyramid.
        backbone_args: further arguments of the backbone.
        backbone_checkpoint: its weights as a classification network, instead of published ones.

    Raises:
        ValueError: an unknown name, an impossible value, a backbone that cannot have the stride.
        TypeError: an argument of a wrong type, or one that the backbone does not have or the model
            decides.
    """
    classes = check_num_classes(num_classes)
    check_flag("separable", separable)

    def last(strides: Sequence[int]) -> tuple[int, ...]:
        return (len(strides) - 1,)

    trunk: Any = segmentation_backbone(
        backbone, last, output_stride, in_chans, pretrained, backbone_args, backbone_checkpoint
    )
    (channels,) = trunk.feature_info.channels()
    rates = [rate * 16 // output_stride for rate in _RATES]
    return SegmentationNetwork(
        trunk,
        nn.Sequential(
            OrderedDict(
                aspp=pyramid(channels, rates, separable=separable),
                classifier=nn.Conv2d(_CHANNELS, classes, 1),
            )
        ),
        classifier=["head.classifier"],
        num_classes=classes,
        in_chans=in_chans,
    )


def pyramid(channels: int, rates: Sequence[int], *, separable: bool) -> nn.Module:
    """Return atrous spatial pyramid pooling, [B, channels, H, W] to [B, 256, H, W].

    Its global mean, one value per picture, is normalised by the running statistics where a batch
    has a single picture; torchvision's refuses that.
    """
    aspp: Any = ASPP(channels, rates, _CHANNELS)
    *branches, pooling = aspp.convs
    pooling[2] = BatchNormOfMeans(_CHANNELS)
    if separable:
        for branch in branches[1:]:
            branch[0] = _separable(branch[0])
    result: nn.Module = aspp
    return result


def _separable(conv: nn.Conv2d) -> nn.Sequential:
    """Return a depthwise and a pointwise convolution in place of a full one."""
    channels: Any = conv.in_channels
    spatial: dict[str, Any] = {"padding": conv.padding, "dilation": conv.dilation}
    return nn.Sequential(
        OrderedDict(
            conv_dw=nn.Conv2d(channels, channels, 3, groups=channels, bias=False, **spatial),
            bn=nn.BatchNorm2d(channels),
            act=nn.ReLU(inplace=True),
            conv_pw=nn.Conv2d(channels, conv.out_channels, 1, bias=False),
        )
    )
