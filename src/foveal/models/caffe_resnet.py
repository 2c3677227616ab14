"""ResNets in the layout of Caffe, which networks for edges and saliency are trained from."""

from typing import Any

from timm.models import resnet as timm_resnet
from torch import nn

from foveal.models.segmentation_backbone import inner

resnet: Any = timm_resnet  # annotated too sparsely for the type checker

# What Caffe's networks were trained on: 0..255, blue first, minus a mean and not divided; here in
# the units of pictures in [0, 1].
CAFFE_INPUT: dict[str, Any] = {
    "channel_order": "bgr",
    "mean": (104.00699 / 255, 116.66877 / 255, 122.67892 / 255),
    "std": (1 / 255, 1 / 255, 1 / 255),
}


def caffe_layout(backbone: nn.Module) -> None:
    """Change timm's ResNet of bottlenecks to the layout of Caffe, in place; its keys stay.

    The first 1x1 convolution of a block has its stride, not the 3x3 one; the max-pool covers the
    last row and column; and all blocks of a dilated stage have the same dilation.

    Args:
        backbone: the network, or timm's wrapper for its feature maps.

    Raises:
        ValueError: a network of other parts.
    """
    network: Any = inner(backbone)
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    plain = isinstance(network.conv1, nn.Conv2d) and isinstance(network.maxpool, nn.MaxPool2d)
    if not plain or not all(isinstance(b, resnet.Bottleneck) for s in stages for b in s):
        raise ValueError(
            "the layout of Caffe is for a ResNet of bottlenecks with a 7x7 stem and a max-pool: "
            "leave arguments for another stem or block out"
        )
    network.maxpool.ceil_mode = True
    for stage in stages:
        dilation = stage[-1].dilation
        for block in stage:
            stride_first(block, dilation)


def stride_first(block: nn.Module, dilation: int) -> None:
    """Move a bottleneck's stride to its first 1x1 convolution, and dilate its 3x3 one, in place."""
    bottleneck: Any = block
    first, second = bottleneck.conv1, bottleneck.conv2
    first.stride, second.stride = second.stride, (1, 1)
    second.dilation = second.padding = (dilation, dilation)
