"""Checkpoints of the authors' coordinate attention (houqb/CoordAttention).

Four layouts: the stand-alone layer (``conv_h``, ``conv_w``), the network file's copy of it
(``conv2``, ``conv3``), its inverted residual alone, and the whole MobileNetV2 with coordinate
attention. Channels, classes and the attention's reduction are read from the shapes, so networks
of any width load, rounded or not; what the shapes do not tell is fixed by the authors' code.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from foveal.layers import CoordinateAttention
from foveal.official.mobilenetv2 import (
    block_names,
    blocks_of,
    check_stride,
    expanded_block,
    mobilenetv2,
    plain_block,
)
from foveal.official.renaming import Modules, check_keys, load_renamed

DESCRIPTION = "houqb/CoordAttention (the layer, its inverted residual, MobileNetV2 with it)"

State = Mapping[str, torch.Tensor]

# Position in the authors' nn.Sequential -> timm's name.
_PLAIN = {0: "conv_dw", 1: "bn1", 3: "conv_pw", 4: "bn2"}
_EXPANDED = {0: "conv_pw", 1: "bn1", 3: "conv_dw", 4: "bn2", 7: "conv_pwl", 8: "bn3"}
_ATTENTION = {"conv1": "conv1", "bn1": "bn1", "conv2": "conv_h", "conv3": "conv_w"}
_BLOCKS = 17
# What the layouts are called where weights do not fit.
_LAYER = "coordinate attention"
_BLOCK = f"an inverted residual with {_LAYER}"
_NETWORK = f"MobileNetV2 with {_LAYER}"


def recognise(state: State) -> bool:
    """Return whether the weights have one of the four layouts, complete or not."""
    return _layout(state) is not None


def build(state: State, *, stride: int | None = None) -> nn.Module:
    """Return the foveal module with the authors' weights.

    Args:
        state: the authors' state_dict, of any of the four layouts.
        stride: of an inverted residual alone, 1 (default) or 2; no weight tells.

    Raises:
        ValueError: keys or shapes that are missing, too many or inconsistent; a stride for
            anything but an inverted residual.
    """
    layout = _layout(state)
    if stride is not None and layout != "block":
        raise ValueError("the hint stride is only for an inverted residual alone")
    if layout == "network":
        return _network(state)
    if layout == "block":
        return _block(state, 1 if stride is None else stride)
    return _layer(state)


def _layout(state: State) -> str | None:
    tops = {key.partition(".")[0] for key in state}
    if "features" in tops:
        has_attention = any(".conv.6.conv1." in key or ".conv.6.conv2." in key for key in state)
        return "network" if has_attention else None
    if tops == {"conv"}:
        positions = {key.split(".")[1] for key in state}
        plain = positions <= {str(p) for p in _PLAIN}
        attention = any(key.startswith("conv.6.conv") for key in state)
        return "block" if attention or plain else None
    # A ResNet too has conv1 to conv3, but further modules beside them.
    if "conv1" in tops and (tops & {"conv_h", "conv_w"} or tops <= set(_ATTENTION)):
        return "layer" if tops & {"conv_h", "conv_w", "conv2", "conv3"} else None
    return None


def layer_modules(state: State) -> Modules:
    """Return the module names of the layer's layout that ``state`` has."""
    network_file = any(key.startswith(("conv2.", "conv3.")) for key in state)
    return _ATTENTION if network_file else {name: name for name in _ATTENTION.values()}


def block_modules(expanded: bool) -> Modules:
    """Return the module names of an inverted residual, with or without expansion."""
    if not expanded:
        return {f"conv.{position}": name for position, name in _PLAIN.items()}
    attention = {f"conv.6.{old}": f"se.{new}" for old, new in _ATTENTION.items()}
    return {f"conv.{p}": name for p, name in _EXPANDED.items()} | attention


def network_modules() -> Modules:
    """Return the module names of the whole network."""
    modules = {
        "features.0.0": "conv_stem",
        "features.0.1": "bn1",
        "conv.0": "conv_head",
        "conv.1": "bn2",
        "classifier.1": "classifier",
    }
    for index, block in enumerate(block_names(), start=1):
        for old, new in block_modules(expanded=index > 1).items():
            modules[f"features.{index}.{old}"] = f"{block}.{new}"
    return modules


def _layer(state: State) -> nn.Module:
    modules = layer_modules(state)
    with torch.device("meta"):
        check_keys(CoordinateAttention(8), state, modules, _LAYER)
    bottleneck, channels = state["conv1.weight"].shape[:2]
    layer = CoordinateAttention(channels, _reduction({channels: bottleneck}))
    load_renamed(layer, state, modules, _LAYER)
    return layer


def _block(state: State, stride: int) -> nn.Module:
    check_stride(stride)
    expanded = any(key.startswith("conv.6.") for key in state)
    modules = block_modules(expanded)
    with torch.device("meta"):
        template = _expanded_block(8, 8, 48, 32, 1) if expanded else plain_block(8, 8, 1)
        check_keys(template, state, modules, _BLOCK)
    if expanded:
        hidden, in_channels = state["conv.0.weight"].shape[:2]
        out_channels = state["conv.7.weight"].shape[0]
        reduction = _reduction({hidden: state["conv.6.conv1.weight"].shape[0]})
        block = _expanded_block(in_channels, out_channels, hidden, reduction, stride)
    else:
        out_channels, in_channels = state["conv.3.weight"].shape[:2]
        block = plain_block(in_channels, out_channels, stride)
    load_renamed(block, state, modules, _BLOCK)
    return block


def _expanded_block(
    in_channels: int, out_channels: int, hidden: int, reduction: int, stride: int
) -> nn.Module:
    block: Any = expanded_block(in_channels, out_channels, hidden, stride)
    block.se = CoordinateAttention(hidden, reduction)
    result: nn.Module = block
    return result


def _network(state: State) -> nn.Module:
    modules = network_modules()
    with torch.device("meta"):
        check_keys(_mobilenetv2(3, [8] * 18, [48] * 16, 8, 8, 32), state, modules, _NETWORK)
    in_chans = state["features.0.0.weight"].shape[1]
    channels = [
        state["features.0.0.weight"].shape[0],
        state["features.1.conv.3.weight"].shape[0],
        *[state[f"features.{i}.conv.7.weight"].shape[0] for i in range(2, _BLOCKS + 1)],
    ]
    expanded = [f"features.{i}.conv" for i in range(2, _BLOCKS + 1)]
    hidden = [state[f"{block}.0.weight"].shape[0] for block in expanded]
    bottlenecks = [state[f"{block}.6.conv1.weight"].shape[0] for block in expanded]
    network = _mobilenetv2(
        in_chans,
        channels,
        hidden,
        head=state["conv.0.weight"].shape[0],
        num_classes=state["classifier.1.weight"].shape[0],
        reduction=_reduction(dict(zip(hidden, bottlenecks, strict=True))),
    )
    load_renamed(network, state, modules, _NETWORK)
    return network


def _mobilenetv2(
    in_chans: int,
    channels: list[int],
    hidden: list[int],
    head: int,
    num_classes: int,
    reduction: int,
) -> nn.Module:
    """Return the authors' network of these widths, see :func:`mobilenetv2`."""
    network = mobilenetv2(
        "mobilenetv2_coordinate", in_chans, channels, hidden, head, num_classes, drop_rate=0.1
    )
    for block, expanded in zip(blocks_of(network)[1:], hidden, strict=True):
        block.se = CoordinateAttention(expanded, reduction)
    return network


def _reduction(bottlenecks: Mapping[int, int]) -> int:
    """Return r such that each bottleneck is max(8, C // r), the authors' defaults first.

    Args:
        bottlenecks: the attention's channels C -> its bottleneck.
    """
    candidates: list[int] = [32, 16, 24, *range(1, max(bottlenecks) + 1)]
    for reduction in candidates:
        if all(max(8, c // reduction) == m for c, m in bottlenecks.items()):
            return reduction
    given = ", ".join(f"{m} of {c}" for c, m in bottlenecks.items())
    raise ValueError(
        f"the attention's bottlenecks ({given} channels) are max(8, C // r) for no reduction r"
    )
