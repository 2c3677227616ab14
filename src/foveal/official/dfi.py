"""Checkpoints of the authors' DFI (backseason/DFI).

The whole network (their ``dfi.pth``) and its parts alone: what follows the trunk, selective
integration (their ``DFIM``), task-adaptive attention (``TAM``), the converter and a predictor.
Depths, widths, levels and tasks are read from keys and shapes. Their bottleneck has the keys of any
ResNet's and is built by :func:`bottleneck`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.models import resnet as timm_resnet
from torch import nn

from foveal.layers import SelectiveIntegration, TaskAdaptiveAttention
from foveal.models.caffe_resnet import CAFFE_INPUT, caffe_layout, stride_first
from foveal.models.dfi import DFI
from foveal.models.dfi_decoder import Converter, DFIDecoder, Predictor, PyramidSum
from foveal.models.segmentation_backbone import segmentation_backbone
from foveal.official.mobilenetv2 import check_stride
from foveal.official.renaming import Modules, check_keys, load_renamed

DESCRIPTION = "backseason/DFI (DFI, its decoder and the parts of it)"

timm_blocks: Any = timm_resnet  # annotated too sparsely for the type checker

State = Mapping[str, torch.Tensor]
Size = Callable[[str, int], int]  # the size of one of the authors' tensors along a dimension

_TASKS = ("edge", "saliency", "skeleton")  # by the authors' numbers

# What the layouts are called where weights do not fit, and how keys begin that tell them.
_WORDS = {
    "network": "DFI",
    "decoder": "DFI without its trunk",
    "integration": "selective integration alone",
    "attention": "task-adaptive attention alone",
    "converter": "the converter alone",
    "predictor": "a predictor alone",
}
_BEGINNINGS = {
    "network": ("base.resnet.", "base.ppm"),
    "decoder": ("dfims.", "tams.", "predictors."),
    "integration": ("merge.0.", "merge_convs.0.", "fcs.0."),
    "attention": ("attention.0.", "block.0."),
    "converter": ("convert.0.",),
    "predictor": ("trans.0.", "fuse."),
}


def recognise(state: State) -> bool:
    """Return whether the weights have one of the layouts, complete or not."""
    return _layout(state) is not None


def build(
    state: State,
    *,
    level: int | None = None,
    selected: int | None = None,
    frozen_norm: bool | None = None,
) -> nn.Module:
    """Return the foveal module with the authors' weights.

    Args:
        state: the authors' state_dict, of any of the layouts.
        level: of selective integration alone, the level whose size the result has, 0 by default;
            no weight tells.
        selected: how many levels a task selects, 3 by default (fewer where there are fewer); no
            weight tells.
        frozen_norm: of the whole network, keep the trunk's BatchNorm as it is in training, as the
            authors do; False by default.

    Raises:
        ValueError: keys or shapes that are missing, too many or inconsistent; a hint for anything
            but what it is for.
    """
    layout = _layout(state) or ""
    hints = {"level": level, "selected": selected, "frozen_norm": frozen_norm}
    for hint, value in hints.items():
        if value is not None and layout not in _HINTS[hint]:
            where = " or ".join(_WORDS[kind] for kind in _HINTS[hint])
            raise ValueError(f"the hint {hint} is only for {where}")
    makers: dict[str, Callable[[Size], nn.Module]] = {
        "network": lambda size: _network(state, size, selected, bool(frozen_norm)),
        "decoder": lambda size: _decoder(state, size, selected),
        "integration": lambda size: _integration(state, size, level or 0, selected),
        "attention": lambda size: TaskAdaptiveAttention(size("block.0.weight", 1)),
        "converter": lambda size: _converter(state, size),
        "predictor": lambda size: Predictor(
            _sizes("trans.#.weight", _count(state, "trans"), 1, size)
        ),
    }
    return _load(state, makers[layout], _WORDS[layout])


_HINTS = {
    "level": ("integration",),
    "selected": ("network", "decoder", "integration"),
    "frozen_norm": ("network",),
}


def modules(module: nn.Module) -> Modules:
    """Return the authors' names and foveal's of all modules within one of foveal's."""
    names = {key.rpartition(".")[0] for key in module.state_dict()}
    return {_theirs(name): name for name in names}


def task_names(count: int) -> tuple[str, ...]:
    """Return foveal's names of the authors' tasks, by their numbers."""
    return (*_TASKS, *(f"task{number}" for number in range(len(_TASKS), count)))[:count]


def bottleneck(state: State, stride: int, dilation: int) -> nn.Module:
    """Return a bottleneck in the layout of Caffe with the authors' weights.

    Args:
        state: keys as in the block: ``conv1.weight``.
        stride: of the first 1x1 convolution, 1 or 2.
        dilation: of the 3x3 convolution.

    Raises:
        ValueError: keys or shapes that do not fit; a stride or dilation that the block cannot have.
    """
    check_stride(stride)
    if dilation < 1:
        raise ValueError(f"the hint dilation must be at least 1, not {dilation!r}")
    shortcut = any(key.startswith("downsample.") for key in state)
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
        stride_first(block, dilation)
        return block

    return _load(state, make, "a bottleneck alone")


def _layout(state: State) -> str | None:
    for layout, beginnings in _BEGINNINGS.items():
        if any(key.startswith(beginnings) for key in state):
            return layout
    return None


def _theirs(name: str) -> str:
    name = re.sub(r"^backbone\.model\.", "base.resnet.", name)
    name = re.sub(r"^pyramid\.", "base.", name)
    name = re.sub(r"^decoder\.", "", name)

    def number(match: re.Match[str]) -> str:
        task = match[2]
        known = _TASKS.index(task) if task in _TASKS else int(task.removeprefix("task"))
        return f"{match[1]}.{known}"

    tasks = rf"({'|'.join(_TASKS)}|task\d+)\b"
    return re.sub(rf"\b(merge_convs|fcs|convs|predictors)\.{tasks}", number, name)


def _load(state: State, make: Callable[[Size], nn.Module], what: str) -> nn.Module:
    """Return the module of the sizes that the weights have, with them."""
    with torch.device("meta"):
        # A last stage of other width, as the stride alone does not ask for its projection.
        template = make(lambda key, dimension: 128 if ".layer4." in key else 64)
        check_keys(template, state, modules(template), what)
    module = make(lambda key, dimension: state[key].shape[dimension])
    load_renamed(module, state, modules(module), what)
    return module


def _count(state: State, *prefixes: str) -> int:
    """Return how many numbered parts there are behind any of the prefixes, at least 1."""
    begins = re.compile(rf"({'|'.join(map(re.escape, prefixes))})\.(\d+)\.")
    return max((int(m[2]) + 1 for key in state if (m := begins.match(key))), default=1)


def _sizes(key: str, count: int, dimension: int, size: Size) -> list[int]:
    """Return the sizes of the tensors whose numbers stand at ``#`` of the key."""
    return [size(key.replace("#", str(i)), dimension) for i in range(count)]


def _selected(selected: int | None, levels: Sequence[int]) -> int:
    return min(3, len(levels)) if selected is None else selected


def _integration(
    state: State, size: Size, level: int, selected: int | None
) -> SelectiveIntegration:
    in_channels = _sizes("merge.#.0.weight", _count(state, "merge"), 1, size)
    return SelectiveIntegration(
        in_channels,
        size("merge.0.0.weight", 0),
        task_names(_count(state, "merge_convs", "fcs", "convs")),
        level=level,
        selected=_selected(selected, in_channels),
    )


def _converter(state: State, size: Size) -> Converter:
    key, count = "convert.#.0.weight", _count(state, "convert")
    return Converter(_sizes(key, count, 1, size), _sizes(key, count, 0, size))


def _decoder(state: State, size: Size, selected: int | None) -> DFIDecoder:
    key, levels = (
        "converter.convert.#.0.weight",
        _count(state, "converter.convert", "dfims.0.merge"),
    )
    converted = _sizes(key, levels, 0, size)
    return DFIDecoder(
        _sizes(key, levels, 1, size),
        converted,
        _sizes("tams.#.block.0.weight", _count(state, "tams", "dfims"), 1, size),
        task_names(_count(state, "predictors", "dfims.0.convs")),
        selected=_selected(selected, converted),
    )


def _network(state: State, size: Size, selected: int | None, frozen_norm: bool) -> DFI:
    found = re.compile(r"base\.resnet\.layer([1-4])\.(\d+)\.")
    blocks = {(int(m[1]), int(m[2])) for key in state if (m := found.match(key))}
    depths = [max(1, sum(stage == s for stage, _ in blocks)) for s in (1, 2, 3, 4)]
    planes = [size(f"base.resnet.layer{stage}.0.conv1.weight", 0) for stage in (1, 2, 3, 4)]
    trunk: Any = segmentation_backbone(
        "resnet50",
        lambda strides: range(len(strides)),
        output_stride=16,
        in_chans=size("base.resnet.conv1.weight", 1),
        backbone_args={"layers": tuple(depths), "channels": tuple(planes)},
    )
    caffe_layout(trunk)
    pyramid = PyramidSum(size("base.ppm_pre.0.weight", 1), size("base.ppm_pre.0.weight", 0))
    return DFI(
        trunk,
        pyramid,
        _decoder(state, size, selected),
        frozen_norm=frozen_norm,
        in_chans=size("base.resnet.conv1.weight", 1),
        input_cfg=CAFFE_INPUT,
    )
