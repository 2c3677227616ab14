"""MobileNetV2 of any width, with attention or of other blocks, and names for what is published.

The networks are timm's EfficientNet class on timm's blocks. Squeeze-and-excitation, CBAM and
coordinate attention stand where timm has squeeze-and-excitation, which is the official place of
coordinate attention too; triplet attention has its authors' own. All other keys are those of timm's
plain ``mobilenetv2_*``, whose weights therefore load into the trunk.

Sources: Sandler et al. 2018, arXiv:1801.04381; Hou, Zhou, Feng 2021, arXiv:2103.02907, section 4;
Misra et al. 2021, arXiv:2010.03045; Zhou et al. 2020, arXiv:2007.02269.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from timm import layers as timm_layers
from timm.models import generate_default_cfgs, get_pretrained_cfg, is_model, register_model
from torch import nn

from foveal.layers import SandglassBlock
from foveal.models.efficientnet_builder import (
    BlockArgs,
    build_efficientnet,
    efficientnet,
    norm_and_activation,
)
from foveal.models.options import attention_slot, check_width
from foveal.models.trunk import names_own_weights, trunk_cfgs
from foveal.names import unknown

timm: Any = timm_layers  # annotated too sparsely for the type checker

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
_BLOCKS = ("inverted_residual", "sandglass")
_AFTER_PROJECTION = ("triplet",)  # on the narrow channels; every other on the expanded ones
# The reductions of the baselines in the coordinate attention paper.
_REDUCTIONS = {"se": 24, "cbam": 24, "coordinate": 32}

_plain_cfg: Any = get_pretrained_cfg("mobilenetv2_100")
default_cfgs = generate_default_cfgs(
    {
        f"mobilenetv2.{_plain_cfg.tag}": dataclasses.replace(_plain_cfg),
        **{
            key: cfg
            for width in ("050", "075", "100")
            for key, cfg in trunk_cfgs(
                f"mobilenetv2_{width}", ("se", "cbam", "coordinate", "triplet")
            ).items()
        },
    }
)


def mobilenetv2(
    pretrained: bool = False,
    *,
    width: float = 1.0,
    attention: str | None = None,
    block: str = "inverted_residual",
    reduction: int | None = None,
    kernel_size: int | None = None,
    spatial: bool | None = None,
    stem_stride: int = 2,
    stages: int = len(STAGES),
    **kw: Any,
) -> nn.Module:
    """MobileNetV2 of any width, with or without attention, of inverted residuals or of sandglasses.

    Where the attention sits in an inverted residual: ``triplet`` after the linear projection, on
    the narrow channels of all 17 blocks, before the shortcut is added; every other after the
    depthwise convolution, on the expanded channels of the 16 blocks that expand. In a sandglass
    block: at its end, on the wide channels, before the shortcut is added.

    ``block="sandglass"`` keeps the stages, their repeats and strides and replaces each of the 16
    inverted residuals. Those join narrow maps of c channels and work on maps t times wider; a
    sandglass joins the wide ones and works on c. So it has t * c channels outside and c in the
    middle, both rounded to multiples of 8. The two ends differ. The first stage does not expand
    (t = 1), there is nothing to invert, and its depthwise-separable block stays. MobileNetV2 ends
    by widening its last narrow map to the classifier's 1280 channels; the last sandglass ends wide
    by itself, so it ends with these 1280, and no convolution or activation follows, as in
    MobileNeXt.

    Args:
        pretrained: load timm's weights of the plain network into everything but the attention;
            ``pretrained_cfg_overlay`` names weights of your own.
        width: multiplier of the channels, rounded to multiples of 8.
        attention: name of a layer of :func:`foveal.layers.create_layer`, or None.
        block: ``inverted_residual`` or ``sandglass``.
        reduction: of the attention's bottleneck, counted from the channels that it gates; 24 for
            ``se`` and ``cbam``, 32 for ``coordinate``.
        kernel_size: of ``triplet``, 7.
        spatial: whether ``triplet`` has its third gate, over height and width; True.
        stem_stride: 1 for small pictures; strides of all feature maps are then halved.
        stages: how many of the seven stages to keep; four suit pictures of about 32 pixels.
        **kw: ``output_stride``, ``features_only`` and the arguments of timm's ``EfficientNet``,
            ``bn_eps`` and ``bn_momentum``.

    Returns:
        The network. With neither attention nor sandglasses it has the keys of timm's.

    Raises:
        ValueError: an unknown block or layer, a number out of range, pretrained weights that do
            not exist or do not fit.
        TypeError: a width that is no number; an argument that the attention does not have, or that
            is for an attention where there is none.
    """
    if block not in _BLOCKS:
        raise ValueError(unknown("block", block, _BLOCKS))
    check_width(width)
    fewest = 2 if block == "sandglass" else 1  # the first has no block to replace
    if not fewest <= stages <= len(STAGES):
        raise ValueError(f"stages must lie between {fewest} and {len(STAGES)}, not {stages!r}")
    make = attention_slot(
        attention, _REDUCTIONS, reduction=reduction, kernel_size=kernel_size, spatial=spatial
    )
    variant = _registered_name(width, attention, block)
    if pretrained and not names_own_weights(kw):
        _check_published(variant, block, stages)

    channels = partial(efficientnet.round_channels, multiplier=width)
    features = kw.pop("num_features", max(1280, channels(1280)))
    norm_act = norm_and_activation(kw, "relu6")
    block_args = efficientnet.decode_arch_def(STAGES[:stages])
    if block == "sandglass":
        for key in ("pad_type", "aa_layer"):
            if kw.get(key):
                raise ValueError(f"{key} is for timm's blocks, not for block='sandglass'")
        plan = _sandglasses(block_args, channels, features, make, **norm_act)
    else:
        after_projection = attention in _AFTER_PROJECTION
        plan = _inverted_residuals(block_args, channels, features, make, after_projection)
    return build_efficientnet(
        variant,
        pretrained,
        block_args,
        stem_size=channels(32),
        stem_stride=stem_stride,
        **plan,
        **norm_act,
        **kw,
    )


register_model(mobilenetv2)  # not as a decorator, which would take the types away


def _registered_name(width: float, attention: str | None, block: str) -> str:
    """Return the name of just this network, timm's own where it is timm's, or the general one."""
    percent = round(100 * width)
    name = f"mobilenetv2_{percent:03}" + (f"_{attention}" if attention else "")
    known = block == "inverted_residual" and math.isclose(percent, 100 * width) and is_model(name)
    return name if known else "mobilenetv2"


def _check_published(variant: str, block: str, stages: int) -> None:
    if block == "sandglass":
        raise ValueError(
            "there are no pretrained weights for block='sandglass': leave pretrained out, or pass "
            "checkpoint_path"
        )
    if stages < len(STAGES):
        raise ValueError(f"the pretrained weights are for all {len(STAGES)} stages, not {stages}")
    cfg: Any = get_pretrained_cfg(variant)
    if variant == "mobilenetv2" or not cfg.has_weights:
        raise ValueError(
            "there are no pretrained weights for a MobileNetV2 of this width and attention: leave "
            "pretrained out, or pass checkpoint_path"
        )


def _inverted_residuals(
    block_args: BlockArgs,
    channels: Callable[[float], int],
    features: int,
    make: Callable[..., nn.Module] | None,
    after_projection: bool,
) -> dict[str, Any]:
    """Round the channels of timm's blocks; return how the network is built of them."""
    for stage in block_args:
        for args in stage:
            args["out_chs"] = channels(args["out_chs"])

    def finish(network: Any) -> None:
        if make is not None and after_projection:
            for block in (block for stage in network.blocks for block in stage):
                expands = hasattr(block, "conv_pwl")
                conv, norm = (block.conv_pwl, block.bn3) if expands else (block.conv_pw, block.bn2)
                # timm's normalisation has a place for an activation; here it is empty.
                weight = conv.weight
                norm.act = make(conv.out_channels, device=weight.device, dtype=weight.dtype)
        network.apply(init_weights)

    return {
        "num_features": features,
        "se_layer": nn.Identity if make is None or after_projection else make,
        "attention": ".act." if after_projection else ".se.",
        "finish": finish,
    }


def _sandglasses(
    block_args: BlockArgs,
    channels: Callable[[float], int],
    features: int,
    make: Callable[..., nn.Module] | None,
    *,
    norm_layer: Any,
    act_layer: Any,
) -> dict[str, Any]:
    """Put placeholders for sandglass blocks in the table; return how the network is built of them.

    timm's builder chooses among blocks of its own. It gets the cheapest of the right channels, and
    from each its stride, dilation and drop path are read before a sandglass takes its place.
    """
    (first, *expanding), middles = block_args, []
    for args in first:
        args["out_chs"] = channels(args["out_chs"])
    for args in (args for stage in expanding for args in stage):
        narrow = args["out_chs"]
        middles.append(channels(narrow))
        wide = channels(args.pop("exp_ratio") * narrow)
        del args["exp_kernel_size"]
        args.update(block_type="ds", out_chs=wide, se_ratio=0.0)
    expanding[-1][-1]["out_chs"] = features

    def finish(network: Any) -> None:
        hidden = iter(middles)
        for stage in network.blocks[1:]:
            for index, placeholder in enumerate(stage):
                depthwise, pointwise = placeholder.conv_dw, placeholder.conv_pw
                stage[index] = SandglassBlock(
                    depthwise.in_channels,
                    pointwise.out_channels,
                    depthwise.stride[0],
                    hidden_channels=next(hidden),
                    attention=make,
                    drop_path=getattr(placeholder.drop_path, "drop_prob", 0.0),
                    dilation=depthwise.dilation[0],
                    norm_layer=timm.get_norm_layer(norm_layer),
                    act_layer=partial(timm.create_act_layer, act_layer, inplace=True),
                    device=pointwise.weight.device,
                    dtype=pointwise.weight.dtype,
                )
        network.apply(init_weights)

    return {"num_features": 0, "attention": ".attn.", "finish": finish}


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


@register_model
def mobilenetv2_050_se(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 0.5 with squeeze-and-excitation."""
    return mobilenetv2(pretrained, width=0.5, attention="se", reduction=reduction, **kw)


@register_model
def mobilenetv2_075_se(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 0.75 with squeeze-and-excitation."""
    return mobilenetv2(pretrained, width=0.75, attention="se", reduction=reduction, **kw)


@register_model
def mobilenetv2_100_se(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 1.0 with squeeze-and-excitation."""
    return mobilenetv2(pretrained, width=1.0, attention="se", reduction=reduction, **kw)


@register_model
def mobilenetv2_050_cbam(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 0.5 with CBAM."""
    return mobilenetv2(pretrained, width=0.5, attention="cbam", reduction=reduction, **kw)


@register_model
def mobilenetv2_075_cbam(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 0.75 with CBAM."""
    return mobilenetv2(pretrained, width=0.75, attention="cbam", reduction=reduction, **kw)


@register_model
def mobilenetv2_100_cbam(pretrained: bool = False, *, reduction: int = 24, **kw: Any) -> nn.Module:
    """MobileNetV2 1.0 with CBAM."""
    return mobilenetv2(pretrained, width=1.0, attention="cbam", reduction=reduction, **kw)


@register_model
def mobilenetv2_050_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNetV2 0.5 with coordinate attention."""
    return mobilenetv2(pretrained, width=0.5, attention="coordinate", reduction=reduction, **kw)


@register_model
def mobilenetv2_075_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNetV2 0.75 with coordinate attention."""
    return mobilenetv2(pretrained, width=0.75, attention="coordinate", reduction=reduction, **kw)


@register_model
def mobilenetv2_100_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """MobileNetV2 1.0 with coordinate attention."""
    return mobilenetv2(pretrained, width=1.0, attention="coordinate", reduction=reduction, **kw)


@register_model
def mobilenetv2_050_triplet(
    pretrained: bool = False, *, kernel_size: int = 7, spatial: bool = True, **kw: Any
) -> nn.Module:
    """MobileNetV2 0.5 with triplet attention."""
    return mobilenetv2(
        pretrained, width=0.5, attention="triplet", kernel_size=kernel_size, spatial=spatial, **kw
    )


@register_model
def mobilenetv2_075_triplet(
    pretrained: bool = False, *, kernel_size: int = 7, spatial: bool = True, **kw: Any
) -> nn.Module:
    """MobileNetV2 0.75 with triplet attention."""
    return mobilenetv2(
        pretrained, width=0.75, attention="triplet", kernel_size=kernel_size, spatial=spatial, **kw
    )


@register_model
def mobilenetv2_100_triplet(
    pretrained: bool = False, *, kernel_size: int = 7, spatial: bool = True, **kw: Any
) -> nn.Module:
    """MobileNetV2 1.0 with triplet attention."""
    return mobilenetv2(
        pretrained, width=1.0, attention="triplet", kernel_size=kernel_size, spatial=spatial, **kw
    )
