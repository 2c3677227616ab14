"""EfficientNet-B0 with coordinate attention in place of squeeze-and-excitation.

timm's network and blocks; each of the 16 squeeze-and-excitations is replaced where it stands, after
the depthwise convolution. All other keys are those of timm's ``efficientnet_b0``, whose weights
therefore load into the trunk. Initial weights are drawn by timm's rule for EfficientNet.

Sources: Tan, Le 2019, arXiv:1905.11946; Hou, Zhou, Feng 2021, arXiv:2103.02907, section 4.
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from foveal.models.efficientnet_builder import (
    build_efficientnet,
    efficientnet,
    norm_and_activation,
)
from foveal.models.options import attention_slot
from foveal.models.trunk import trunk_cfgs

# timm's notation for the stages of EfficientNet-B0; "se1" marks the blocks that get the attention.
_STAGES = [
    ["ds_r1_k3_s1_e1_c16_se1"],
    ["ir_r2_k3_s2_e6_c24_se1"],
    ["ir_r2_k5_s2_e6_c40_se1"],
    ["ir_r3_k3_s2_e6_c80_se1"],
    ["ir_r3_k5_s1_e6_c112_se1"],
    ["ir_r4_k5_s2_e6_c192_se1"],
    ["ir_r1_k3_s1_e6_c320_se1"],
]
# timm's squeeze-and-excitation, which its published weights hold.
_REPLACED = (".se.conv_reduce.", ".se.conv_expand.")

default_cfgs = generate_default_cfgs(trunk_cfgs("efficientnet_b0", ["coordinate"]))


@register_model
def efficientnet_b0_coordinate(
    pretrained: bool = False, *, reduction: int = 32, **kw: Any
) -> nn.Module:
    """EfficientNet-B0 with coordinate attention in place of squeeze-and-excitation.

    Args:
        pretrained: load timm's EfficientNet-B0 into the trunk; its squeeze-and-excitations are
            left out, the attention is new.
        reduction: r of the attention; its bottleneck has max(8, C // r) of C expanded channels.
        **kw: ``stem_stride``, ``output_stride``, ``features_only`` and the arguments of timm's
            ``EfficientNet``, ``bn_eps`` and ``bn_momentum``.
    """
    return build_efficientnet(
        "efficientnet_b0_coordinate",
        pretrained,
        efficientnet.decode_arch_def(_STAGES),
        attention=".se.",
        replaced=_REPLACED,
        se_layer=attention_slot("coordinate", {}, reduction=reduction),
        **norm_and_activation(kw, "swish"),
        **kw,
    )
