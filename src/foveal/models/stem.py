"""Stems for small pictures: one argument for every network that begins with a strided convolution.

timm's EfficientNet and MobileNet classes fix the stem's stride at 2. With stride 1 the network
halves its input once less, which is what pictures of 28 to 64 pixels need.
"""

from collections.abc import Callable
from typing import Any

from torch import nn


def build_with_stem(
    factory: Callable[..., nn.Module], stem_stride: int, *, output_stride: int = 32, **kw: Any
) -> nn.Module:
    """Build a network whose stem has the given stride.

    Args:
        factory: called with ``output_stride`` (left out where it cannot matter) and ``**kw``; makes
            a network with a convolution ``conv_stem`` of stride 2 and feature information that
            counts from there.
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
        _unstride(network)
    return network


def _unstride(network: nn.Module) -> None:
    inner = network.model if isinstance(getattr(network, "model", None), nn.Module) else network
    stem = getattr(inner, "conv_stem", None)
    if not isinstance(stem, nn.Conv2d) or stem.stride != (2, 2):
        raise ValueError(
            "stem_stride=1 needs a network with a strided convolution named 'conv_stem' "
            f"(EfficientNet, MobileNetV1 to V4 and their like), which {type(inner).__name__} lacks"
        )
    stem.stride = (1, 1)
    lists = [getattr(net, "feature_info", []) for net in (network, inner)]
    levels = [level for info in lists for level in getattr(info, "info", info)]
    # A wrapper shares its network's list: each level is halved once.
    for level in {id(level): level for level in levels}.values():
        level["reduction"] //= 2
