"""Checkpoints of the authors' triplet attention (LandskapeAI/triplet-attention).

The layer alone, a block of ResNet or MobileNetV2 alone, and the whole networks. The layer's gates
have two sets of names, and a ResNet's block calls the layer ``triplet_attention``, ``triplet`` or,
in early weights, ``pcam``; any of them combine. Widths, depths, classes, the kernel size, whether
there is a gate over height and width, and the stem for ImageNet or CIFAR are read from keys and
shapes.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.models import resnet as timm_resnet
from torch import nn

from foveal.layers import TripletAttention, create_layer
from foveal.models.stem import small_stem
from foveal.official.mobilenetv2 import (
    block_names,
    blocks_of,
    check_stride,
    expanded_block,
    mobilenetv2,
    plain_block,
)
from foveal.official.pictures import picture_config
from foveal.official.renaming import Modules, check_keys, load_renamed

DESCRIPTION = (
    "LandskapeAI/triplet-attention (the layer, blocks of ResNet and MobileNetV2, and both networks)"
)

timm_blocks: Any = timm_resnet  # annotated too sparsely for the type checker

State = Mapping[str, torch.Tensor]

# Our gate -> the authors' gate and what is inside it, in either set of names.
_STAND_ALONE = {"cw": "cw.conv", "hc": "hc.conv", "hw": "hw.conv"}
_IN_NETWORKS = {
    "cw": "ChannelGateH.spatial",
    "hc": "ChannelGateW.spatial",
    "hw": "SpatialGate.spatial",
}
# A key of a gate over channels, CBAM has none of these names; what is before it is the layer's.
_GATE = re.compile(r"(?:(.+)\.)?(?:cw\.conv|hc\.conv|ChannelGate[HW]\.spatial)\.(?:conv|bn)\.\w+")
_ANY_GATE = r"(?:^|\.)(?:(?:cw|hc|hw)\.conv|(?:ChannelGate[HW]|SpatialGate)\.spatial)\."
_SLOT = r"(triplet_attention|triplet|pcam)"
# Where the layer is in each layout.
_PLACES = {
    "layer": "",
    "resnet": rf"layer\d+\.\d+\.{_SLOT}",
    "resnet block": _SLOT,
    "mobilenetv2": r"features\.\d+\.conv\.\d+",
    "mobilenetv2 block": r"conv\.\d+",
}
_BLOCKS = 17  # of MobileNetV2
# What the layouts are called where weights do not fit.
_LAYER = "triplet attention"
_INVERTED_RESIDUAL = f"an inverted residual with {_LAYER}"
_MOBILENETV2 = f"MobileNetV2 with {_LAYER}"


def recognise(state: State) -> bool:
    """Return whether the weights have one of the layouts, complete or not."""
    return _layout(state) is not None


def build(state: State, *, stride: int | None = None) -> nn.Module:
    """Return the foveal module with the authors' weights.

    Args:
        state: the authors' state_dict, of any of the layouts.
        stride: of a block alone, 1 (default) or 2; no weight tells.

    Raises:
        ValueError: keys or shapes that are missing, too many or inconsistent; a stride for
            anything but a block alone.
    """
    layout = _layout(state)
    if layout == "resnet block":
        return resnet_block(state, 1 if stride is None else stride)
    if layout == "mobilenetv2 block":
        return _mobilenetv2_block(state, 1 if stride is None else stride)
    if stride is not None:
        raise ValueError("the hint stride is only for a block alone")
    if layout == "resnet":
        return resnet(state)
    if layout == "mobilenetv2":
        return _mobilenetv2(state)
    layer = TripletAttention(*_arguments(state))
    renamed = modules(state)
    check_keys(layer, state, renamed, _LAYER)
    load_renamed(layer, state, renamed, _LAYER)
    return layer


def modules(state: State) -> Modules:
    """Return the authors' names and foveal's of all modules that are called differently."""
    layout = _layout(state)
    if layout == "layer":
        return _layer_modules(state)
    if layout == "resnet block":
        return _resnet_block_modules(state)
    if layout == "resnet":
        blocks = (f"layer{s}.{b}." for s, n in enumerate(_depths(state), 1) for b in range(n))
        inner = _resnet_block_modules(state)
        return {block + old: block + new for block in blocks for old, new in inner.items()}
    if layout == "mobilenetv2 block":
        return _mobilenetv2_block_modules(state, expanded=_is_expanded(state))
    renamed = {
        "features.0.0": "conv_stem",
        "features.0.1": "bn1",
        "features.18.0": "conv_head",
        "features.18.1": "bn2",
        "classifier.1": "classifier",
    }
    for index, block in enumerate(block_names(), start=1):
        for old, new in _mobilenetv2_block_modules(state, expanded=index > 1).items():
            renamed[f"features.{index}.{old}"] = f"{block}.{new}"
    return renamed


def _layout(state: State) -> str | None:
    found = {match[1] or "" for key in state if (match := _GATE.fullmatch(key))}
    for layout, place in _PLACES.items():
        if any(re.fullmatch(place, prefix) for prefix in found):
            return layout
    return None


def _layer_modules(state: State) -> dict[str, str]:
    named = any(re.search(r"(?:^|\.)ChannelGate[HW]\.", key) for key in state)
    gates = _IN_NETWORKS if named else _STAND_ALONE
    _, spatial = _arguments(state)
    return {
        f"{theirs}.{part}": f"{ours}.conv.{part}"
        for ours, theirs in gates.items()
        if ours != "hw" or spatial
        for part in ("conv", "bn")
    }


def _arguments(state: State) -> tuple[int, bool]:
    """Return the kernel size of the layers, and whether they have the gate over height and width.

    All layers of a network have the same; that each tensor fits is checked when it is loaded.
    """
    gates = [key for key in state if re.search(_ANY_GATE, key)]
    kernels = [state[key].shape[-1] for key in gates if state[key].ndim == 4 and len(state[key])]
    spatial = any(re.search(r"(?:^|\.)(?:hw\.conv|SpatialGate\.spatial)\.", key) for key in gates)
    return kernels[0] if kernels else 7, spatial


def resnet_block(state: State, stride: int) -> nn.Module:
    """Return a ResNet's block with the authors' weights, with or without attention.

    Args:
        state: keys as in the block: ``conv1.weight``.
        stride: 1 or 2.

    Raises:
        ValueError: keys or shapes that do not fit; a stride that the block cannot have.
    """
    check_stride(stride)
    bottleneck = _is_bottleneck(state)
    shortcut = any(key.startswith("downsample.") for key in state)
    if stride == 2 and not shortcut:
        raise ValueError("the hint stride must be 1 for a block without projection (downsample)")
    renamed = _resnet_block_modules(state)
    with torch.device("meta"):
        in_channels = 32 if bottleneck else 8  # of a block that needs no projection
        template = _resnet_block(bottleneck, in_channels, 8, stride, shortcut, _attention(state))
        check_keys(template, state, renamed, "a block of ResNet")
    planes, in_channels = state["conv1.weight"].shape[:2]
    block = _resnet_block(bottleneck, in_channels, planes, stride, shortcut, _attention(state))
    load_renamed(block, state, renamed, "a block of ResNet")
    return block


def resnet(state: State) -> nn.Module:
    """Return a whole ResNet with the authors' weights, with or without attention.

    Args:
        state: the authors' state_dict.

    Raises:
        ValueError: keys or shapes that do not fit.
    """
    renamed = modules(state) if recognise(state) else {}
    depths = _depths(state)
    what = "ResNet" if _attention(state) is None else f"ResNet with {_LAYER}"
    with torch.device("meta"):
        planes = [16 if _is_bottleneck(state) else 64] * 4  # the first stage needs no projection
        check_keys(_resnet(state, depths, planes, 64, 3, 7, 8), state, renamed, what)
    width, in_chans, kernel_size = state["conv1.weight"].shape[:3]
    planes = [state[f"layer{stage}.0.conv1.weight"].shape[0] for stage in (1, 2, 3, 4)]
    num_classes = state["fc.weight"].shape[0]
    network = _resnet(state, depths, planes, width, in_chans, kernel_size, num_classes)
    load_renamed(network, state, renamed, what)
    return network


def _resnet(
    state: State,
    depths: list[int],
    planes: list[int],
    width: int,
    in_chans: int,
    kernel_size: int,
    num_classes: int,
) -> nn.Module:
    """Return the network of these widths; structure as ``state`` has it.

    Args:
        state: the authors' weights.
        depths: blocks of the four stages.
        planes: their inner channels.
        width: channels of the stem.
        in_chans: channels of the input.
        kernel_size: of the stem, 7 or (for CIFAR) 3.
        num_classes: outputs.
    """
    bottleneck, attention = _is_bottleneck(state), _attention(state)
    shortcut = any(key.startswith("layer1.0.downsample.") for key in state)
    network: Any = timm_blocks.ResNet(
        timm_blocks.Bottleneck if bottleneck else timm_blocks.BasicBlock,
        depths,
        num_classes=num_classes,
        in_chans=in_chans,
        channels=planes,
        block_args={"attn_layer": attention},
    )
    if kernel_size == 3:
        small_stem(network)
    # timm's stem has 64 channels; here it and the block that reads it have the weights' own.
    stem = network.conv1
    network.conv1 = nn.Conv2d(
        in_chans, width, stem.kernel_size, stem.stride, stem.padding, bias=False
    )
    network.bn1 = nn.BatchNorm2d(width)
    network.layer1[0] = _resnet_block(bottleneck, width, planes[0], 1, shortcut, attention)
    network.feature_info[0]["num_chs"] = width
    network.pretrained_cfg = network.default_cfg = picture_config(
        "resnet_triplet",
        in_chans,
        num_classes,
        first_conv="conv1",
        classifier="fc",
        side=32 if kernel_size == 3 else 224,
    )
    result: nn.Module = network
    return result


def _resnet_block(
    bottleneck: bool,
    in_channels: int,
    planes: int,
    stride: int,
    shortcut: bool,
    attention: Any,
) -> nn.Module:
    """Return timm's block; ``shortcut`` gives it a projection that its widths do not ask for."""
    block_class = timm_blocks.Bottleneck if bottleneck else timm_blocks.BasicBlock
    out_channels = planes * block_class.expansion
    shortcut = shortcut or in_channels != out_channels
    projection = (
        timm_blocks.downsample_conv(in_channels, out_channels, 1, stride) if shortcut else None
    )
    block: nn.Module = block_class(in_channels, planes, stride, projection, attn_layer=attention)
    return block


def _resnet_block_modules(state: State) -> dict[str, str]:
    """Return the names within a block; trunks are called as in timm."""
    slots = [match[1] for key in state if (match := re.search(rf"(?:^|\.){_SLOT}\.", key))]
    if not slots:
        return {}
    inner = _layer_modules(state).items()
    return {f"{slots[0]}.{old}": f"se.{new}" for old, new in inner}


def _attention(state: State) -> Any:
    """Return what makes the attention of a block as ``state`` has it; None if it has none."""
    if not any(re.search(_ANY_GATE, key) for key in state):
        return None
    kernel_size, spatial = _arguments(state)

    def make(channels: int, **kw: Any) -> nn.Module:
        return create_layer("triplet", channels, kernel_size=kernel_size, spatial=spatial, **kw)

    return make


def _is_bottleneck(state: State) -> bool:
    return any(re.search(r"(?:^|\.)conv3\.", key) for key in state)


def _depths(state: State) -> list[int]:
    """Return how many blocks the four stages have."""
    found = {match[0] for key in state if (match := re.match(r"layer[1-4]\.\d+\.", key))}
    return [max(1, sum(block.startswith(f"layer{s}.") for block in found)) for s in (1, 2, 3, 4)]


def _mobilenetv2_block_modules(state: State, expanded: bool) -> dict[str, str]:
    names = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
    slot, norm = "3", "bn2"
    if expanded:
        names = {
            **{"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2"},
            **{"2": "conv_pwl", "3": "bn3"},
        }
        slot, norm = "4", "bn3"
    attention = {f"{slot}.{o}": f"{norm}.act.{n}" for o, n in _layer_modules(state).items()}
    return {f"conv.{old}": new for old, new in {**names, **attention}.items()}


def _is_expanded(state: State) -> bool:
    return any(key.startswith(("conv.1.0.", "conv.1.1.", "conv.4.")) for key in state)


def _attach(block: Any, state: State) -> None:
    """Put the attention after the projection's BatchNorm, where timm has no activation."""
    norm = block.bn3 if hasattr(block, "bn3") else block.bn2
    norm.act = TripletAttention(*_arguments(state))


def _mobilenetv2_block(state: State, stride: int) -> nn.Module:
    check_stride(stride)
    expanded = _is_expanded(state)
    renamed = modules(state)

    def make(in_channels: int, out_channels: int, hidden: int) -> nn.Module:
        block = (
            expanded_block(in_channels, out_channels, hidden, stride)
            if expanded
            else plain_block(in_channels, out_channels, stride)
        )
        _attach(block, state)
        return block

    with torch.device("meta"):
        check_keys(make(8, 8, 48), state, renamed, _INVERTED_RESIDUAL)
    hidden, in_channels = state["conv.0.0.weight"].shape[:2]
    out_channels = state["conv.2.weight" if expanded else "conv.1.weight"].shape[0]
    block = make(in_channels if expanded else hidden, out_channels, hidden)
    load_renamed(block, state, renamed, _INVERTED_RESIDUAL)
    return block


def _mobilenetv2(state: State) -> nn.Module:
    renamed = modules(state)

    def make(
        in_chans: int, channels: list[int], hidden: list[int], head: int, num_classes: int
    ) -> nn.Module:
        network = mobilenetv2(
            "mobilenetv2_triplet", in_chans, channels, hidden, head, num_classes, drop_rate=0.25
        )
        for block in blocks_of(network):
            _attach(block, state)
        return network

    with torch.device("meta"):
        check_keys(make(3, [8] * 18, [48] * 16, 8, 8), state, renamed, _MOBILENETV2)
    expanded = [f"features.{i}.conv" for i in range(2, _BLOCKS + 1)]
    network = make(
        in_chans=state["features.0.0.weight"].shape[1],
        channels=[
            state["features.0.0.weight"].shape[0],
            state["features.1.conv.1.weight"].shape[0],
            *[state[f"{block}.2.weight"].shape[0] for block in expanded],
        ],
        hidden=[state[f"{block}.0.0.weight"].shape[0] for block in expanded],
        head=state["features.18.0.weight"].shape[0],
        num_classes=state["classifier.1.weight"].shape[0],
    )
    load_renamed(network, state, renamed, _MOBILENETV2)
    return network
