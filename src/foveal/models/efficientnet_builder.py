"""One way to build networks on timm's EfficientNet classes and blocks.

MobileNetV2 and EfficientNet are the same class in timm. What differs is the table of stages, the
activation and what sits in a block; features, strides, stems and pretrained trunks are alike.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg
from timm.models import efficientnet as timm_efficientnet
from torch import nn

from foveal.models.levels import check_out_indices
from foveal.models.options import feature_mode
from foveal.models.stem import build_with_stem
from foveal.models.trunk import trunk_weights

efficientnet: Any = timm_efficientnet  # annotated too sparsely for the type checker

BlockArgs = list[list[dict[str, Any]]]  # timm's description of the stages, decoded
_HEAD = ("conv_head.", "bn2.", "classifier.")  # what a network for features does not have


def build_efficientnet(
    variant: str,
    pretrained: bool,
    block_args: BlockArgs,
    *,
    attention: str,
    replaced: tuple[str, ...] = (),
    finish: Callable[[nn.Module], object] | None = None,
    stem_stride: int = 2,
    output_stride: int = 32,
    features_only: bool = False,
    **kw: Any,
) -> nn.Module:
    """Build a network on timm's ``EfficientNet``.

    Args:
        variant: name under which timm finds the pretrained weights and their description.
        pretrained: load the plain network's weights into the trunk.
        block_args: the stages, as timm's ``decode_arch_def`` returns them, channels final.
        attention: what the keys of new layers hold, as :func:`foveal.models.trunk.trunk_weights`
            takes it.
        replaced: what the keys hold that the published weights have and this network does not.
        finish: called with the network before weights are loaded; changes it in place.
        stem_stride: 1 for small pictures; strides of all feature maps are then halved.
        output_stride: largest total stride; what would be coarser is dilated.
        features_only: return feature maps; ``out_indices`` and ``feature_cls`` as in timm.
        **kw: arguments of timm's ``EfficientNet``.

    Raises:
        ValueError: impossible strides or levels; pretrained weights that do not fit.
    """
    # A level ends where the next stage has a stride.
    levels = 1 + sum(stage[0]["stride"] > 1 for stage in block_args)
    check_out_indices(kw.get("out_indices"), levels)
    net_class, build_args = feature_mode(
        efficientnet.EfficientNet,
        efficientnet.EfficientNetFeatures,
        ("num_classes", "num_features", "global_pool"),
        features_only=features_only,
        levels=levels,
        kw=kw,
    )

    def build(**net_args: Any) -> nn.Module:
        network: nn.Module = net_class(**net_args)
        if finish is not None:
            finish(network)
        return network

    network: nn.Module = build_model_with_cfg(
        partial(build_with_stem, build, stem_stride, output_stride=output_stride),
        variant,
        pretrained,
        pretrained_strict=False,  # the filter has checked: only the attention's tensors are missing
        pretrained_filter_fn=partial(
            trunk_weights,
            attention=attention,
            adapted={"conv_stem.": 1, "classifier.": 0},
            head=_HEAD,
            replaced=replaced,
        ),
        **build_args,
        block_args=block_args,
        round_chs_fn=int,  # channels are taken as they are
        **kw,
    )
    return network


def norm_and_activation(kw: dict[str, Any], activation: str) -> dict[str, Any]:
    """Take what says how to normalise and activate out of ``kw``; return timm's two arguments.

    Args:
        kw: a caller's arguments; ``norm_layer``, ``bn_eps``, ``bn_momentum`` and ``act_layer`` are
            removed.
        activation: timm's name of the default.
    """
    norm_layer = kw.pop("norm_layer", None)
    default = partial(nn.BatchNorm2d, **efficientnet.resolve_bn_args(kw))
    act_layer = efficientnet.resolve_act_layer(kw, activation)
    return {"norm_layer": norm_layer or default, "act_layer": act_layer}
