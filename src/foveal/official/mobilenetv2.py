"""MobileNetV2 of any widths, on timm's blocks, for the authors' networks that are built on it.

Blocks and network have no attention yet: each source puts its own where it stands.
"""

from itertools import pairwise
from typing import Any

from timm.models import _efficientnet_blocks, efficientnet
from torch import nn

from foveal.models.attention_mobilenetv2 import STAGES
from foveal.official.pictures import picture_config

timm_blocks: Any = _efficientnet_blocks  # annotated too sparsely for the type checker
timm_efficientnet: Any = efficientnet


def check_stride(stride: int) -> None:
    """Do nothing if a block can have this stride; no weight tells it.

    Raises:
        ValueError: it cannot.
    """
    if stride not in (1, 2):
        raise ValueError(f"the hint stride must be 1 or 2, not {stride!r}")


def plain_block(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return timm's block for expansion 1."""
    block: nn.Module = timm_blocks.DepthwiseSeparableConv(
        in_channels, out_channels, stride=stride, act_layer=nn.ReLU6
    )
    return block


def expanded_block(in_channels: int, out_channels: int, hidden: int, stride: int) -> nn.Module:
    """Return timm's inverted residual with exactly ``hidden`` channels inside."""
    block: nn.Module = timm_blocks.InvertedResidual(
        in_channels,
        out_channels,
        stride=stride,
        exp_ratio=hidden / in_channels,
        act_layer=nn.ReLU6,
    )
    _set_hidden(block, hidden)
    return block


def mobilenetv2(
    architecture: str,
    in_chans: int,
    channels: list[int],
    hidden: list[int],
    head: int,
    num_classes: int,
    drop_rate: float,
) -> nn.Module:
    """Return the network of these widths, none of them rounded.

    Args:
        architecture: its name, for whoever reads its ``default_cfg``.
        in_chans: channels of the input.
        channels: of the stem and after each of the 17 blocks.
        hidden: expanded channels of the blocks 2 to 17.
        head: channels before the classifier.
        num_classes: outputs.
        drop_rate: dropout before the classifier.
    """
    stages = timm_efficientnet.decode_arch_def(STAGES)
    blocks = [block for stage in stages for block in stage]
    for block, out_channels in zip(blocks, channels[1:], strict=True):
        block["out_chs"] = out_channels
        block["se_ratio"] = None
    for block, (in_channels, _), expanded in zip(
        blocks[1:], pairwise(channels[1:]), hidden, strict=True
    ):
        block["exp_ratio"] = expanded / in_channels
    network: Any = timm_efficientnet.EfficientNet(
        stages,
        num_classes=num_classes,
        num_features=head,
        in_chans=in_chans,
        stem_size=channels[0],
        round_chs_fn=int,  # channels are taken as they are
        act_layer=nn.ReLU6,
        drop_rate=drop_rate,
    )
    for block, expanded in zip(blocks_of(network)[1:], hidden, strict=True):
        _set_hidden(block, expanded)
    network.pretrained_cfg = network.default_cfg = picture_config(
        architecture, in_chans, num_classes, first_conv="conv_stem", classifier="classifier"
    )
    result: nn.Module = network
    return result


def blocks_of(network: nn.Module) -> list[Any]:
    """Return the network's 17 blocks in order."""
    stages: Any = network.blocks
    return [block for stage in stages for block in stage]


def block_names() -> list[str]:
    """Return timm's names of the 17 blocks in order: ``blocks.0.0``, ``blocks.1.0``, ..."""
    return [
        f"blocks.{stage}.{block}"
        for stage, blocks in enumerate(timm_efficientnet.decode_arch_def(STAGES))
        for block in range(len(blocks))
    ]


def _set_hidden(block: Any, hidden: int) -> None:
    """Give timm's block exactly ``hidden`` channels inside; timm rounds them to multiples of 8."""
    inward, depthwise, outward = block.conv_pw, block.conv_dw, block.conv_pwl
    if depthwise.in_channels == hidden:
        return
    norm_act = type(block.bn1)
    block.conv_pw = nn.Conv2d(inward.in_channels, hidden, 1, bias=False)
    block.bn1 = norm_act(hidden, act_layer=nn.ReLU6)
    block.conv_dw = nn.Conv2d(
        hidden, hidden, 3, stride=depthwise.stride, padding=1, groups=hidden, bias=False
    )
    block.bn2 = norm_act(hidden, act_layer=nn.ReLU6)
    block.conv_pwl = nn.Conv2d(hidden, outward.out_channels, 1, bias=False)
