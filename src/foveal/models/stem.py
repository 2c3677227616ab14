"""Stems for small pictures: one argument for every network that begins with a strided convolution.

timm's networks are made for 224 pixels. With ``stem_stride=1`` those that begin with a convolution
``conv_stem`` halve their input once less, and ResNets twice, which is what pictures of 28 to 64
pixels need.
"""

from collections.abc import Callable
from typing import Any

from timm.models.resnet import ResNet
from torch import nn


def build_with_stem(
    factory: Callable[..., nn.Module], stem_stride: int, *, output_stride: int = 32, **kw: Any
) -> nn.Module:
    """Build a network whose stem has the given stride.

    Args:
        factory: called with ``output_stride`` (left out where it cannot matter) and ``**kw``; makes
            a network with a convolution ``conv_stem`` of stride 2, or a ResNet, and feature
            information that counts from there.
        stem_stride: 1 or 2.
        output_stride: the network's largest total stride, stem included; what would be coarser is
            dilated instead. A power of two from 2 to 32.
        **kw: further arguments of the factory.

    Returns:
        The network; feature reductions count pixels of the input.

    Raises:
        ValueError: another stride, or a network without such a stem.
    """
    if stem_stride not in (1, 2):
        raise ValueError(f"stem_stride must be 1 or 2, not {stem_stride!r}")
    if output_stride not in (2, 4, 8, 16, 32):
        raise ValueError(f"output_stride must be 2, 4, 8, 16 or 32, not {output_stride!r}")
    if output_stride < 32:
        # The builder takes the stem for stride 2, whatever it becomes here.
        kw["output_stride"] = output_stride * 2 // stem_stride
    network = factory(**kw)
    if stem_stride == 1:
        if is_resnet(network):
            if output_stride < 32:
                raise ValueError("a ResNet of timm takes stem_stride=1 or output_stride, not both")
            small_stem(network)
        else:
            _unstride(network)
    return network


def small_stem(network: nn.Module) -> None:
    """Give a ResNet of timm the stem for small pictures, in place: 3x3, stride 1, no max-pool.

    The stem then keeps the picture's size, as the first stage does, and the last feature map has
    an eighth of it. Authors of methods for ImageNet have it so for CIFAR.

    Raises:
        ValueError: the network's stem is none of one convolution and a pool.
    """
    net: Any = getattr(network, "model", network)
    conv = net.conv1
    if not isinstance(conv, nn.Conv2d) or not isinstance(net.maxpool, nn.MaxPool2d):
        raise ValueError(
            "stem_stride=1 puts one 3x3 convolution in place of a 7x7 convolution and a max-pool, "
            "and the stem of this network has other parts: take a plain one such as resnet18, "
            "without stem_type, replace_stem_pool and aa_layer"
        )
    kind: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    net.conv1 = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=False, **kind)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    for level in _levels(network):
        level["reduction"] //= 2 if level["module"] == "act1" else 4


def is_resnet(network: nn.Module) -> bool:
    """Return whether this is timm's ResNet, or its feature maps, whose class is a list."""
    inner = getattr(network, "model", network)
    names = {name for name, _ in network.named_children()}
    return isinstance(inner, ResNet) or {"conv1", "bn1", "maxpool", "layer1"} <= names


def _unstride(network: nn.Module) -> None:
    inner = network.model if isinstance(getattr(network, "model", None), nn.Module) else network
    stem = getattr(inner, "conv_stem", None)
    if not isinstance(stem, nn.Conv2d) or stem.stride != (2, 2):
        raise ValueError(
            "stem_stride=1 needs a network with a strided convolution named 'conv_stem' "
            "(EfficientNet, MobileNetV1 to V4 and their like) or a ResNet, which "
            f"{type(inner).__name__} is not"
        )
    stem.stride = (1, 1)
    for level in _levels(network):
        level["reduction"] //= 2


def _levels(network: nn.Module) -> list[dict[str, Any]]:
    """Return the network's feature information; a wrapper shares its network's list."""
    inner = getattr(network, "model", network)
    lists = [getattr(net, "feature_info", []) for net in (network, inner)]
    levels = [level for info in lists for level in getattr(info, "info", info)]
    return list({id(level): level for level in levels}.values())
