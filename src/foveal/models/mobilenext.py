"""MobileNeXt: a stem, twenty sandglass blocks, a classifier; with attention if wanted.

``mobilenext`` builds it of any width and with any layer of :func:`foveal.layers.create_layer`; the
names with numbers are what is published, and what lies between.

Sources: Zhou et al. 2020, arXiv:2007.02269, and the authors' code, which has layouts of the block
that the paper does not describe; with attention: Hou, Zhou, Feng 2021, arXiv:2103.02907.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm import layers as timm_layers
from timm.models import (
    FeatureInfo,
    build_model_with_cfg,
    checkpoint_seq,
    generate_default_cfgs,
    is_model,
    register_model,
)
from timm.models._features import feature_take_indices
from torch import nn

from foveal.layers import SandglassBlock
from foveal.models.attention_mobilenetv2 import init_weights
from foveal.models.levels import check_out_indices
from foveal.models.options import attention_slot, check_width, feature_mode
from foveal.models.stem import build_with_stem
from foveal.models.trunk import trunk_weights

timm: Any = timm_layers  # annotated too sparsely for the type checker

# Reduction of the blocks, channels, number of blocks, stride of the first. The paper's first
# version has two blocks in the seventh row; the authors' code and, by their word, the final version
# have three.
ROWS = (
    (2, 96, 1, 2),
    (6, 144, 1, 1),
    (6, 192, 3, 2),
    (6, 288, 3, 2),
    (6, 384, 4, 1),
    (6, 576, 4, 2),
    (6, 960, 3, 1),
    (6, 1280, 1, 1),
)
_REDUCTIONS = {"se": 32, "cbam": 32, "coordinate": 32}
_WIDTHS = {"035": 0.35, "050": 0.5, "075": 0.75, "100": 1.0, "140": 1.4}


@dataclass(frozen=True)
class Block:
    """A line of the table: what a block is before norm, activation and attention are chosen.

    Attributes:
        in_channels: channels of its input.
        out_channels: channels of its output.
        stride: of the last depthwise convolution.
        reduction: as of :class:`foveal.layers.SandglassBlock`.
        hidden_channels: channels of the middle; None for the rule of the reduction.
        dw_before: whether it begins with a depthwise convolution.
        dw_after: whether it ends with one.
        shortcut: whether its input is added to its output.
    """

    in_channels: int
    out_channels: int
    stride: int = 1
    reduction: int = 6
    hidden_channels: int | None = None
    dw_before: bool = True
    dw_after: bool = True
    shortcut: bool = False

    def make(self, *, stride: int, **kw: Any) -> SandglassBlock:
        """Return the block, with this stride and further arguments of the layer."""
        return SandglassBlock(
            self.in_channels,
            self.out_channels,
            stride,
            self.reduction,
            hidden_channels=self.hidden_channels,
            dw_before=self.dw_before,
            dw_after=self.dw_after,
            **kw,
        )


def block_table(width: float = 1.0, stages: int = len(ROWS)) -> tuple[int, list[list[Block]]]:
    """Return the stem's channels and the blocks of each stage.

    Channels are rounded to multiples of 8, of 4 at width 0.1. The last stage has 1280 channels,
    more where the width is more than 1. Where a stage changes the channels, its first block has no
    depthwise convolution but the one with the stride, so none at stride 1. A stage of one block and
    stride 1 keeps both and has no shortcut, nor has the first, whose reduction is 2.

    Args:
        width: multiplier of the channels.
        stages: how many of the eight stages.

    Raises:
        ValueError: a number out of range.
        TypeError: a width that is no number.
    """
    check_width(width)
    if not 1 <= stages <= len(ROWS):
        raise ValueError(f"stages must lie between 1 and {len(ROWS)}, not {stages!r}")
    divisor = 4 if width == 0.1 else 8
    stem = channels = timm.make_divisible(32 * width, divisor)
    table = []
    for reduction, out_channels, repeats, first_stride in ROWS[:stages]:
        out = timm.make_divisible(out_channels * width, divisor)
        if out_channels == ROWS[-1][1]:
            out = max(out_channels, out)
        stage = []
        for stride in (first_stride, *[1] * (repeats - 1)):
            keeps_both = reduction == 2 or channels == out or (repeats == 1 and first_stride == 1)
            stage.append(
                Block(
                    channels,
                    out,
                    stride,
                    reduction,
                    dw_before=keeps_both,
                    dw_after=keeps_both or stride > 1,
                    shortcut=channels == out and stride == 1 and repeats > 1,
                )
            )
            channels = out
        table.append(stage)
    return stem, table


class MobileNeXt(nn.Module):
    """A network of sandglass blocks, from their table.

    Source: Zhou et al. 2020, arXiv:2007.02269. Differs from the official code: the stride is
    honoured where rounding makes a stage's channels equal (some widths below 0.14), partial
    shortcuts are added out of place, and the head's dropout is an argument.

    Args:
        stem_channels: channels after the first convolution.
        table: the blocks of each stage, as :func:`block_table` returns them.
        num_classes: outputs; 0 leaves the classifier out.
        in_chans: channels of the input.
        output_stride: largest total stride; what would be coarser is dilated.
        identity_fraction: share of the channels that the shortcuts cover, in [0, 1].
        attention: called with channels, ``device`` and ``dtype``; makes the attention of a block.
        attention_position: after the ``first`` depthwise convolution of the blocks that begin with
            one, or the ``last`` of those that end with one.
        drop_rate: dropout before the classifier.
        drop_path_rate: of the last block; it grows linearly from 0.
        global_pool: timm's name of the pooling.
        norm_layer: normalisation, called with channels, ``device`` and ``dtype``, or timm's name.
        act_layer: activation class, or timm's name.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input [B, in_chans, H, W], any H, W >= 1; output logits [B, num_classes].

    Raises:
        ValueError: what the blocks refuse.
    """

    def __init__(
        self,
        stem_channels: int,
        table: Sequence[Sequence[Block]],
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        output_stride: int = 32,
        identity_fraction: float = 1.0,
        attention: Callable[..., nn.Module] | None = None,
        attention_position: Literal["first", "last"] = "last",
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        norm_layer: Callable[..., nn.Module] | str = nn.BatchNorm2d,
        act_layer: Callable[..., nn.Module] | str = nn.ReLU6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        norm: Callable[..., nn.Module] = timm.get_norm_layer(norm_layer)
        activation = partial(timm.create_act_layer, act_layer, inplace=True)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False

        self.conv_stem = nn.Conv2d(
            in_chans, stem_channels, 3, stride=2, padding=1, bias=False, **factory
        )
        self.bn1 = norm(stem_channels, **factory)
        self.act1 = activation()
        self.feature_info: Any = [_level(stem_channels, 2, "act1")]
        self.stage_ends = [0]  # which stage each level ends with; 0 is the stem

        blocks = sum(len(stage) for stage in table)
        drop_paths = iter([drop_path_rate * index / blocks for index in range(blocks)])
        total_stride, dilation = 2, 1
        stages = []
        for number, stage in enumerate(table, start=1):
            modules = []
            for block in stage:
                dilates = total_stride * block.stride > output_stride
                has_place = block.dw_before if attention_position == "first" else block.dw_after
                modules.append(
                    block.make(
                        stride=1 if dilates else block.stride,
                        dilation=dilation,
                        identity_fraction=identity_fraction if block.shortcut else 0.0,
                        attention=attention if has_place else None,
                        attention_position=attention_position,
                        drop_path=next(drop_paths),
                        norm_layer=norm,
                        act_layer=activation,
                        **factory,
                    )
                )
                if dilates:  # from the next block on: this one still reads the finer map
                    dilation *= block.stride
                else:
                    total_stride *= block.stride
            stages.append(nn.Sequential(*modules))
            if number == len(table) or table[number][0].stride > 1:
                self.feature_info.append(
                    _level(stage[-1].out_channels, total_stride, f"blocks.{number - 1}")
                )
                self.stage_ends.append(number)
        self.blocks = nn.Sequential(*stages)
        self.num_features = table[-1][-1].out_channels
        self._make_classifier(global_pool, **factory)
        self.apply(init_weights)

    def _make_classifier(self, global_pool: str, **factory: Any) -> None:
        self.global_pool, self.classifier = timm.create_classifier(
            self.num_features, self.num_classes, pool_type=global_pool, **factory
        )
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.classifier.apply(init_weights)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns of the parameters' names by depth, for timm's optimisers."""
        depth = r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)"
        return {"stem": r"^conv_stem|bn1", "blocks": [(depth, None)]}

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: keep each block's input only."""
        self.grad_checkpointing = enable

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def get_classifier(self) -> nn.Module:
        """Return the classifier."""
        classifier: nn.Module = self.classifier
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one; 0 classes leave it out."""
        self.num_classes = num_classes
        weight = self.conv_stem.weight
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        self._make_classifier(pool, device=weight.device, dtype=weight.dtype)
        self.global_pool.train(self.training)
        self.classifier.train(self.training)

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return the last map and those of the levels asked for.

        Args:
            x: pictures, [B, C, H, W].
            indices: levels of ``feature_info``; a number takes the last ones, None all.
            norm: without effect: the maps end in their blocks' own normalisation.
            stop_early: compute nothing beyond the last level asked for.
            output_fmt: ``NCHW``.
            intermediates_only: return the levels only.

        Returns:
            List of maps [B, C, H, W], or (last map computed, that list).

        Raises:
            ValueError: another format.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', not {output_fmt!r}")
        taken, last = feature_take_indices(len(self.feature_info), indices)
        stages = self.blocks[: self.stage_ends[last]] if stop_early else self.blocks
        ends = {self.stage_ends[i] for i in taken}
        x = self.act1(self.bn1(self.conv_stem(x)))
        maps = [x] if 0 in ends else []
        for number, stage in enumerate(stages, start=1):
            x = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
            if number in ends:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove what the levels asked for do not need; return their indices."""
        taken: list[int]
        taken, last = feature_take_indices(len(self.feature_info), indices)
        end = self.stage_ends[last]
        if prune_head or end < len(self.blocks):
            self.num_features = self.feature_info[last]["num_chs"]
            self.reset_classifier(0, "")
        self.blocks = self.blocks[:end]
        return taken

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last map, [B, num_features, H / 32, W / 32]."""
        x = self.act1(self.bn1(self.conv_stem(x)))
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            x = checkpoint_seq(self.blocks, x, flatten=True)
        else:
            x = self.blocks(x)
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return logits [B, num_classes], or with ``pre_logits`` what the classifier gets."""
        x = self.global_pool(x)
        if self.drop_rate > 0.0:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        if not pre_logits:
            x = self.classifier(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, [B, num_classes]."""
        return self.forward_head(self.forward_features(x))


class MobileNeXtFeatures(MobileNeXt):
    """The network as a backbone: its maps instead of logits, under the whole network's keys.

    Args:
        *args: of :class:`MobileNeXt`.
        out_indices: levels; a number takes the last ones. What they do not need is left out.
        **kw: of :class:`MobileNeXt`.
    """

    def __init__(self, *args: Any, out_indices: int | Sequence[int], **kw: Any) -> None:
        super().__init__(*args, num_classes=0, **kw)
        indices = out_indices if isinstance(out_indices, int) else list(out_indices)
        taken = self.prune_intermediate_layers(indices)
        self.taken_ends = [self.stage_ends[i] for i in taken]
        self.feature_info = FeatureInfo(self.feature_info, tuple(taken))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:  # type: ignore[override]
        """Return one map [B, C, H, W] for each level."""
        x = self.act1(self.bn1(self.conv_stem(x)))
        maps = [x] if 0 in self.taken_ends else []
        for number, stage in enumerate(self.blocks, start=1):
            if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
                x = checkpoint_seq(stage, x)
            else:
                x = stage(x)
            if number in self.taken_ends:
                maps.append(x)
        return maps


def _level(channels: int, reduction: int, module: str) -> dict[str, Any]:
    return {"num_chs": channels, "reduction": reduction, "module": module}


def _picture_config() -> dict[str, Any]:
    """Return how pictures are prepared, as timm's networks describe it."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "conv_stem",
        "classifier": "classifier",
    }


default_cfgs = generate_default_cfgs(
    {
        f"{name}.untrained": _picture_config()
        for name in (
            "mobilenext",
            *[
                f"mobilenext_{width}{attention}"
                for width in _WIDTHS
                for attention in ("", "_se", "_coordinate")
            ],
        )
    }
)


def mobilenext(
    pretrained: bool = False,
    *,
    width: float = 1.0,
    attention: str | None = None,
    reduction: int | None = None,
    kernel_size: int | None = None,
    spatial: bool | None = None,
    stem_stride: int = 2,
    stages: int = len(ROWS),
    output_stride: int = 32,
    features_only: bool = False,
    **kw: Any,
) -> nn.Module:
    """MobileNeXt of any width, with or without attention.

    With the official coordinate attention (reduction 32) after the last depthwise convolution,
    which ends 18 of the 20 blocks, width 1 has 4.088 M parameters, and 4.09 M are published. After
    the first, which the authors' text recommends, it has 3.972 M: 15 blocks begin with one. Hence
    the default ``attention_position="last"``. The published size with squeeze-and-excitation,
    3.89 M, is nearest to the same place and reduction: 3.896 M.

    Args:
        pretrained: load a plain network's weights into everything but the attention. None are
            published: this is for ``pretrained_cfg_overlay`` with weights of your own.
        width: multiplier of the channels; :func:`block_table` rounds them.
        attention: name of a layer of :func:`foveal.layers.create_layer`, or None.
        reduction: of the attention's bottleneck, counted from the channels that it gates; 32 for
            ``se``, ``cbam`` and ``coordinate``.
        kernel_size: of ``triplet``, 7.
        spatial: whether ``triplet`` has its third gate, over height and width; True.
        stem_stride: 1 for small pictures; strides of all feature maps are then halved.
        stages: how many of the eight stages to keep, for small pictures; five end at stride 16.
        output_stride: largest total stride; what would be coarser is dilated.
        features_only: return feature maps; ``out_indices`` and ``feature_cls`` as in timm.
        **kw: ``attention_position`` and the further arguments of :class:`MobileNeXt`.

    Raises:
        ValueError: an unknown layer, a number out of range, levels that do not exist, weights that
            do not fit.
        TypeError: a width that is no number; an argument that the attention does not have, or that
            is for an attention where there is none.
    """
    make = attention_slot(
        attention, _REDUCTIONS, reduction=reduction, kernel_size=kernel_size, spatial=spatial
    )
    if make is None and "attention_position" in kw:
        raise TypeError("attention_position is for an attention layer, and none is given")
    stem_channels, table = block_table(width, stages)
    levels = 2 + sum(stage[0].stride > 1 for stage in table[1:])
    check_out_indices(kw.get("out_indices"), levels)
    net_class, build_args = feature_mode(
        MobileNeXt,
        MobileNeXtFeatures,
        ("num_classes", "global_pool"),
        features_only=features_only,
        levels=levels,
        kw=kw,
    )
    network: nn.Module = build_model_with_cfg(
        partial(build_with_stem, net_class, stem_stride, output_stride=output_stride),
        _registered_name(width, attention),
        pretrained,
        pretrained_strict=False,  # the filter has checked: only the attention's tensors are missing
        pretrained_filter_fn=_trunk,
        **build_args,
        stem_channels=stem_channels,
        table=table,
        attention=make,
        **kw,
    )
    return network


register_model(mobilenext)  # not as a decorator, which would take the types away


def _registered_name(width: float, attention: str | None) -> str:
    """Return the name of just this network, or the general one."""
    numbers = {value: number for number, value in _WIDTHS.items()}
    name = f"mobilenext_{numbers.get(width)}" + (f"_{attention}" if attention else "")
    return name if is_model(name) else "mobilenext"


def _trunk(state: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a plain network that this one has a place for."""
    stages = len(network.get_submodule("blocks"))  # type: ignore[arg-type]
    left_out = [f"blocks.{number}." for number in range(stages, len(ROWS))]
    return trunk_weights(
        state,
        network,
        attention=".attn.",
        adapted={"conv_stem.": 1, "classifier.": 0},
        head=("classifier.", *left_out),
    )


@register_model
def mobilenext_035(pretrained: bool = False, **kw: Any) -> nn.Module:
    """MobileNeXt 0.35."""
    return mobilenext(pretrained, width=0.35, **kw)


@register_model
def mobilenext_050(pretrained: bool = False, **kw: Any) -> nn.Module:
    """MobileNeXt 0.5."""
    return mobilenext(pretrained, width=0.5, **kw)


@register_model
def mobilenext_075(pretrained: bool = False, **kw: Any) -> nn.Module:
    """MobileNeXt 0.75."""
    return mobilenext(pretrained, width=0.75, **kw)


@register_model
def mobilenext_100(pretrained: bool = False, **kw: Any) -> nn.Module:
    """MobileNeXt 1.0."""
    return mobilenext(pretrained, width=1.0, **kw)


@register_model
def mobilenext_140(pretrained: bool = False, **kw: Any) -> nn.Module:
    """MobileNeXt 1.4."""
    return mobilenext(pretrained, width=1.4, **kw)


@register_model
def mobilenext_035_se(pretrained: bool = False, *, reduction: int = 32, **kw: Any) -> nn.Module:
    """MobileNeXt 0.35 with squeeze-and-excitation."""
    return mobilenext(pretrained, width=0.35, attention="se", reduction=reduction, **kw)


@register_model
def mobilenext_050_se(pretrained: bool = False, *, reduction: int = 32, **kw: Any) -> nn.Module:
    """MobileNeXt 0.5 with squeeze-and-excitation."""
    return mobilenext(pretrained, width=0.5, attention="se", reduction=reduction, **kw)


@register_model
def mobilenext_075_se(pretrained: bool = False, *, reduction: int = 32, **kw: Any) -> nn.Module:
    """MobileNeXt 0.75 with squeeze-and-excitation."""
    return mobilenext(pretrained, width=0.75, attention="se", reduction=reduction, **kw)


@register_model
def mobilenext_100_se(pretrained: bool = False, *, reduction: int = 32, **kw: Any) -> nn.Module:
    """MobileNeXt 1.0 with squeeze-and-excitation."""
    return mobilenext(pretrained, width=1.0, attention="se", reduction=reduction, **kw)


@register_model
def mobilenext_140_se(pretrained: bool = False, *, reduction: int = 32, **kw: Any) -> nn.Module:
    """MobileNeXt 1.4 with squeeze-and-excitation."""
    return mobilenext(pretrained, width=1.4, attention="se", reduction=reduction, **kw)


@register_model
def mobilenext_035_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNeXt 0.35 with coordinate attention."""
    return mobilenext(pretrained, width=0.35, attention="coordinate", reduction=reduction, **kw)


@register_model
def mobilenext_050_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNeXt 0.5 with coordinate attention."""
    return mobilenext(pretrained, width=0.5, attention="coordinate", reduction=reduction, **kw)


@register_model
def mobilenext_075_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNeXt 0.75 with coordinate attention."""
    return mobilenext(pretrained, width=0.75, attention="coordinate", reduction=reduction, **kw)


@register_model
def mobilenext_100_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNeXt 1.0 with coordinate attention."""
    return mobilenext(pretrained, width=1.0, attention="coordinate", reduction=reduction, **kw)


@register_model
def mobilenext_140_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNeXt 1.4 with coordinate attention."""
    return mobilenext(pretrained, width=1.4, attention="coordinate", reduction=reduction, **kw)
