"""MobileNetV2 with an attention layer in every inverted residual that expands.

The network is timm's EfficientNet class on timm's blocks, with the attention where timm has
squeeze-and-excitation: after the depthwise convolution, before the linear projection. That is the
official place of coordinate attention too. All other keys are those of timm's plain
``mobilenetv2_*``, whose weights therefore load into the trunk.

Sources: Sandler et al. 2018, arXiv:1801.04381; Hou, Zhou, Feng 2021, arXiv:2103.02907, section 4.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models import efficientnet as timm_efficientnet
from torch import nn

from foveal.layers import create_layer
from foveal.models.stem import build_with_stem
from foveal.models.trunk import trunk_cfgs, trunk_weights

efficientnet: Any = timm_efficientnet  # annotated too sparsely for the type checker

# timm's notation for the stages of MobileNetV2; "se1" marks the blocks that get the attention.
STAGES = [
    ["ds_r1_k3_s1_c16"],
    ["ir_r2_k3_s2_e6_c24_se1"],
    ["ir_r3_k3_s2_e6_c32_se1"],
    ["ir_r4_k3_s2_e6_c64_se1"],
    ["ir_r3_k3_s1_e6_c96_se1"],
    ["ir_r3_k3_s2_e6_c160_se1"],
    ["ir_r1_k3_s1_e6_c320_se1"],
]
# Feature maps of the first 1, 2, ... 7 stages: a level ends where the next stage has a stride.
_LEVELS = (1, 2, 3, 4, 4, 5, 5)
_HEAD = ("conv_head.", "bn2.", "classifier.")  # what a network for features does not have


default_cfgs = generate_default_cfgs(
    {
        key: cfg
        for width in ("050", "075", "100")
        for key, cfg in trunk_cfgs(f"mobilenetv2_{width}", ("se", "cbam", "coordinate")).items()
    }
)


def attention_slot(name: str, **layer_args: Any) -> Callable[..., nn.Module]:
    """Return what timm's blocks call to make their attention.

    Args:
        name: a layer of :func:`foveal.layers.create_layer`.
        **layer_args: its arguments, ``channels`` aside.
    """

    def make(
        channels: int,
        *,
        act_layer: Any = None,  # timm passes the block's; the layers here have their own
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> nn.Module:
        return create_layer(name, channels, device=device, dtype=dtype, **layer_args)

    return make


def init_weights(module: nn.Module) -> None:
    """Initialise as the authors of coordinate attention do.

    Convolutions, the attention's included, are drawn from N(0, sqrt(2 / (k * k * out))), biases
    are 0, BatchNorm is 1 and 0. timm divides ``out`` by the groups, so its depthwise convolutions
    begin sqrt(out) times larger. The classifier is drawn from N(0, 0.01) as in torchvision's
    MobileNetV2: timm's uniform draw grows as classes get fewer, and with ten of them a network
    begins with logits of several units, sure and wrong.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.01)
        nn.init.zeros_(module.bias)


def _create(
    variant: str,
    width: float,
    attention: str,
    pretrained: bool,
    *,
    reduction: int,
    stem_stride: int = 2,
    stages: int = len(STAGES),
    output_stride: int = 32,
    features_only: bool = False,
    **kw: Any,
) -> nn.Module:
    """Build a registered network.

    Args:
        variant: registered name.
        width: multiplier of the channels, rounded to multiples of 8.
        attention: name of the layer.
        pretrained: load the plain network's weights into the trunk.
        reduction: of the attention's bottleneck, counted from the expanded channels.
        stem_stride: 1 for small pictures; strides of all feature maps are then halved.
        stages: how many of the seven stages to keep; four suit pictures of about 32 pixels.
        output_stride: largest total stride; what would be coarser is dilated.
        features_only: return feature maps; ``out_indices`` and ``feature_cls`` as in timm.
        **kw: arguments of timm's ``EfficientNet``, and ``bn_eps`` and ``bn_momentum``.
    """
    if not 1 <= stages <= len(STAGES):
        raise ValueError(f"stages must lie between 1 and {len(STAGES)}, not {stages!r}")
    if pretrained and stages < len(STAGES):
        raise ValueError(f"the pretrained weights are for all {len(STAGES)} stages, not {stages}")
    levels = _LEVELS[stages - 1]
    _check_out_indices(kw.get("out_indices"), levels)
    build, build_args = _mode(features_only, levels, kw)
    round_chs_fn = partial(efficientnet.round_channels, multiplier=width)
    norm_layer = kw.pop("norm_layer", None)
    network: nn.Module = build_model_with_cfg(
        partial(build_with_stem, build, stem_stride, output_stride=output_stride),
        variant,
        pretrained,
        pretrained_strict=False,  # the filter has checked: only the attention's tensors are missing
        pretrained_filter_fn=partial(
            trunk_weights, attention=".se.", adapted=("conv_stem.", "classifier."), head=_HEAD
        ),
        **build_args,
        block_args=efficientnet.decode_arch_def(STAGES[:stages]),
        num_features=max(1280, round_chs_fn(1280)),
        stem_size=32,
        round_chs_fn=round_chs_fn,
        se_layer=attention_slot(attention, reduction=reduction),
        norm_layer=norm_layer or partial(nn.BatchNorm2d, **efficientnet.resolve_bn_args(kw)),
        act_layer=efficientnet.resolve_act_layer(kw, "relu6"),
        **kw,
    )
    return network


def _initialised(net_class: Callable[..., nn.Module], **kw: Any) -> nn.Module:
    return net_class(**kw).apply(init_weights)


def _mode(
    features_only: bool, levels: int, kw: dict[str, Any]
) -> tuple[Callable[..., nn.Module], Any]:
    """Return the class to build, initialised, and what timm's builder is told about features."""
    if features_only and not ("feature_cls" in kw or "feature_cfg" in kw):
        # timm's default for this family: no wrapper, the keys of the whole network.
        unused = ("num_classes", "num_features", "global_pool")
        kw.setdefault("out_indices", tuple(range(levels)))
        return partial(_initialised, efficientnet.EfficientNetFeatures), {"kwargs_filter": unused}
    defaults = {"out_indices": tuple(range(levels)), "flatten_sequential": True}
    feature_cfg = {**defaults, **kw.pop("feature_cfg", {})}
    return (
        partial(_initialised, efficientnet.EfficientNet),
        {"features_only": features_only, "feature_cfg": feature_cfg},
    )


def _check_out_indices(out_indices: int | Sequence[int] | None, levels: int) -> None:
    if isinstance(out_indices, int):
        valid = 1 <= out_indices <= levels
    else:
        valid = out_indices is None or all(-levels <= i < levels for i in out_indices)
    if not valid:
        raise ValueError(
            f"out_indices must be a number of levels up to {levels} or indices from 0 to "
            f"{levels - 1}, not {out_indices!r}"
        )


@register_model
def mobilenetv2_050_se(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 0.5 with squeeze-and-excitation."""
    return _create("mobilenetv2_050_se", 0.5, "se", pretrained, reduction=reduction, **kw)


@register_model
def mobilenetv2_075_se(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 0.75 with squeeze-and-excitation."""
    return _create("mobilenetv2_075_se", 0.75, "se", pretrained, reduction=reduction, **kw)


@register_model
def mobilenetv2_100_se(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 1.0 with squeeze-and-excitation."""
    return _create("mobilenetv2_100_se", 1.0, "se", pretrained, reduction=reduction, **kw)


@register_model
def mobilenetv2_050_cbam(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 0.5 with CBAM."""
    return _create("mobilenetv2_050_cbam", 0.5, "cbam", pretrained, reduction=reduction, **kw)


@register_model
def mobilenetv2_075_cbam(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 0.75 with CBAM."""
    return _create("mobilenetv2_075_cbam", 0.75, "cbam", pretrained, reduction=reduction, **kw)


@register_model
def mobilenetv2_100_cbam(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 1.0 with CBAM."""
    return _create("mobilenetv2_100_cbam", 1.0, "cbam", pretrained, reduction=reduction, **kw)


@register_model
def mobilenetv2_050_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNetV2 0.5 with coordinate attention."""
    name = "mobilenetv2_050_coordinate"
    return _create(name, 0.5, "coordinate", pretrained, reduction=reduction, **kw)


@register_model
def mobilenetv2_075_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNetV2 0.75 with coordinate attention."""
    name = "mobilenetv2_075_coordinate"
    return _create(name, 0.75, "coordinate", pretrained, reduction=reduction, **kw)


@register_model
def mobilenetv2_100_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNetV2 1.0 with coordinate attention."""
    name = "mobilenetv2_100_coordinate"
    return _create(name, 1.0, "coordinate", pretrained, reduction=reduction, **kw)
