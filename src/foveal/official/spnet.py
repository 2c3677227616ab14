"""Checkpoints of the authors' strip pooling and SPNet (Andrew-Qibin/SPNet).

The whole network, with or without gates and auxiliary head; its parts alone: the gate (their
``SPBlock``), a bottleneck, mixed pooling (their ``StripPooling``), and both heads; and the
deep-stem ResNets for ImageNet that their trunks begin with, which are timm's ``resnet50s`` and
``resnet101s``. Depths, classes and channels are read from keys and shapes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.models import resnet as timm_resnet
from torch import nn

from foveal.layers import MixedPooling, StripPooling
from foveal.models import create_model
from foveal.models.segmentation_network import fcn_head
from foveal.models.spnet import decoder, gated
from foveal.official.mobilenetv2 import check_stride
from foveal.official.renaming import Modules, check_keys, load_renamed

DESCRIPTION = (
    "Andrew-Qibin/SPNet (SPNet, its blocks and heads, strip and mixed pooling, and deep-stem "
    "ResNets of ImageNet)"
)

timm_blocks: Any = timm_resnet  # annotated too sparsely for the type checker

State = Mapping[str, torch.Tensor]
Size = Callable[[str, int], int]  # the size of one of the authors' tensors along a dimension

# Foveal's names -> the authors', by how a module's name begins.
_BLOCK = {"act2.gate.": "spm."}
_HEAD = {
    "reduce.": "trans_layer.",
    "context.0.": "strip_pool1.",
    "context.1.": "strip_pool2.",
    "score.conv": "score_layer.0",
    "score.bn": "score_layer.1",
    "score.classifier": "score_layer.4",
}
_AUXILIARY_HEAD = {"conv": "conv5.0", "bn": "conv5.1", "classifier": "conv5.4"}
_NETWORK = {
    "backbone.model.": "pretrained.",
    **{f"head.{ours}": f"head.{theirs}" for ours, theirs in _HEAD.items()},
    **{f"auxiliary_head.{ours}": f"auxlayer.{theirs}" for ours, theirs in _AUXILIARY_HEAD.items()},
}


def recognise(state: State) -> bool:
    """Return whether the weights have one of the layouts, complete or not."""
    return _layout(state) is not None


def build(
    state: State,
    *,
    stride: int | None = None,
    dilation: int | None = None,
    pool_sizes: Sequence[int] | None = None,
) -> nn.Module:
    """Return the foveal module with the authors' weights.

    Args:
        state: the authors' state_dict, of any of the layouts.
        stride: of a bottleneck alone, 1 (default) or 2; no weight tells.
        dilation: of a bottleneck alone, 1 by default.
        pool_sizes: of mixed pooling alone and of the head alone, (20, 12) by default.

    Raises:
        ValueError: keys or shapes that are missing, too many or inconsistent; a hint for anything
            but what it is for.
    """
    layout = _layout(state)
    hints = {"stride": stride, "dilation": dilation, "pool_sizes": pool_sizes}
    for hint, value in hints.items():
        if value is not None and hint not in _HINTS.get(layout or "", ()):
            where = " or ".join(_WORDS[kind] for kind, known in _HINTS.items() if hint in known)
            raise ValueError(f"the hint {hint} is only for {where}")
    if layout == "network":
        return _network(state)
    if layout == "resnet":
        return _resnet(state)
    if layout == "bottleneck":
        return bottleneck(state, 1 if stride is None else stride, dilation or 1)
    sizes = (20, 12) if pool_sizes is None else pool_sizes
    makers: dict[str, Callable[[Size], nn.Module]] = {
        "strip": lambda size: StripPooling(size("conv1.weight", 1), size("conv1.weight", 0)),
        "mixed": lambda size: MixedPooling(size("conv1_1.0.weight", 1), sizes),
        "head": lambda size: _head(size, sizes),
        "auxiliary head": lambda size: fcn_head(
            size("conv5.0.weight", 1), size("conv5.0.weight", 0), size("conv5.4.weight", 0)
        ),
    }
    return _load(state, makers[layout or ""], _WORDS[layout or ""])


# What the layouts are called where weights do not fit.
_WORDS = {
    "strip": "strip pooling alone",
    "mixed": "mixed pooling alone",
    "head": "SPNet's head alone",
    "auxiliary head": "the auxiliary head alone",
    "bottleneck": "a bottleneck alone",
}
_HINTS = {"bottleneck": ("stride", "dilation"), "mixed": ("pool_sizes",), "head": ("pool_sizes",)}


def modules(module: nn.Module) -> Modules:
    """Return the authors' names and foveal's of all modules within one of foveal's."""
    names = {key.rpartition(".")[0] for key in module.state_dict()}
    children = {name for name, _ in module.named_children()}
    if "backbone" in children:
        prefixes = _NETWORK
    elif "score" in children:
        prefixes = _HEAD
    elif "classifier" in children:
        prefixes = _AUXILIARY_HEAD
    else:
        prefixes = _BLOCK
    return {_theirs(name, prefixes): name for name in names}


def _theirs(name: str, prefixes: Mapping[str, str]) -> str:
    for ours, theirs in prefixes.items():
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
            break
    return name.replace(".act2.gate.", ".spm.")


def _layout(state: State) -> str | None:
    first = {key.partition(".")[0] for key in state}
    if first & {"pretrained", "auxlayer"} or _begins(state, "head.strip_pool"):
        return "network"
    if first & {"trans_layer", "strip_pool1", "strip_pool2"}:
        return "head"
    if first & {"conv1_1", "conv1_2", "conv2_0"}:
        return "mixed"
    if first == {"conv5"}:
        return "auxiliary head"
    if "spm" in first:
        return "bottleneck"
    kernel = state["conv1.weight"].shape[2:] if "conv1.weight" in state else ()
    if tuple(kernel) == (3, 1):
        return "strip"
    deep = state["conv1.6.weight"].shape if "conv1.6.weight" in state else ()
    plain = "layer1.0.downsample.0.weight" in state and not _begins(state, "layer1.0.se.")
    return "resnet" if tuple(deep) == (128, 64, 3, 3) and plain else None


def _begins(state: State, prefix: str) -> bool:
    return any(key.startswith(prefix) for key in state)


def bottleneck(state: State, stride: int, dilation: int) -> nn.Module:
    """Return a ResNet's bottleneck with the authors' weights, with or without gate.

    Args:
        state: keys as in the block: ``conv1.weight``.
        stride: of the 3x3 convolution, 1 or 2.
        dilation: of the 3x3 convolution.

    Raises:
        ValueError: keys or shapes that do not fit; a stride or dilation that the block cannot have.
    """
    check_stride(stride)
    if dilation < 1:
        raise ValueError(f"the hint dilation must be at least 1, not {dilation!r}")
    shortcut, gate = _begins(state, "downsample."), _begins(state, "spm.")
    if stride == 2 and not shortcut:
        raise ValueError("the hint stride must be 1 for a block without projection (downsample)")

    def make(size: Size) -> nn.Module:
        planes, in_channels = size("conv1.weight", 0), size("conv1.weight", 1)
        projection = (
            timm_blocks.downsample_conv(in_channels, 4 * planes, 1, stride) if shortcut else None
        )
        block: nn.Module = timm_blocks.Bottleneck(
            in_channels, planes, stride, projection, dilation=dilation
        )
        if gate:
            gated(block, StripPooling(planes))
        return block

    return _load(state, make, _WORDS["bottleneck"])


def _load(state: State, make: Callable[[Size], nn.Module], what: str) -> nn.Module:
    """Return the module of the sizes that the weights have, with them."""
    with torch.device("meta"):
        template = make(lambda key, dimension: 16)
        check_keys(template, state, modules(template), what)
    module = make(lambda key, dimension: state[key].shape[dimension])
    load_renamed(module, state, modules(module), what)
    return module


def _head(size: Size, pool_sizes: Sequence[int]) -> nn.Module:
    head = decoder(size("trans_layer.0.weight", 1), size("score_layer.4.weight", 0))
    width = size("trans_layer.0.weight", 0)
    head.context = nn.Sequential(*(MixedPooling(width, pool_sizes) for _ in range(2)))
    return head


def _network(state: State) -> nn.Module:
    arguments: dict[str, Any] = {
        **_depths(state, "pretrained."),
        "gate": "strip" if any(".spm." in key for key in state) else None,
        "auxiliary": _begins(state, "auxlayer."),
    }
    with torch.device("meta"):
        template = create_model("spnet", **arguments)
        check_keys(template, state, modules(template), "SPNet")
    network = create_model(
        "spnet",
        num_classes=state["head.score_layer.4.weight"].shape[0],
        in_chans=state["pretrained.conv1.0.weight"].shape[1],
        **arguments,
    )
    load_renamed(network, state, modules(network), "SPNet")
    return network


def _resnet(state: State) -> nn.Module:
    depths = _depths(state, "")
    name, arguments = depths["backbone"], depths["backbone_args"]
    network = create_model(
        name,
        num_classes=state["fc.weight"].shape[0] if "fc.weight" in state else 0,
        in_chans=state["conv1.0.weight"].shape[1] if "conv1.0.weight" in state else 3,
        **arguments,
    )
    load_renamed(network, state, {}, f"a deep-stem ResNet ({name})")
    return network


def _depths(state: State, prefix: str) -> dict[str, Any]:
    """Return which of timm's trunks has the blocks that the weights have."""
    found = re.compile(re.escape(prefix) + r"layer([1-4])\.(\d+)\.")
    blocks = {(int(m[1]), int(m[2])) for key in state if (m := found.match(key))}
    depths = tuple(max(1, sum(stage == s for stage, _ in blocks)) for s in (1, 2, 3, 4))
    if depths == (3, 4, 23, 3):
        return {"backbone": "resnet101s", "backbone_args": {}}
    args = {} if depths == (3, 4, 6, 3) else {"layers": depths}
    return {"backbone": "resnet50s", "backbone_args": args}
