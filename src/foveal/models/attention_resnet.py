"""ResNet with an attention layer at the end of every residual branch.

The network is timm's ResNet class on timm's blocks, with the attention where timm has
squeeze-and-excitation: after the last BatchNorm of a block, before the addition and the final ReLU.
That is the official place of triplet attention; coordinate attention has no official ResNet, and
stands where its rivals do. All other keys are those of timm's plain ``resnet*``, whose weights
therefore load into the trunk.

Sources: He et al. 2016, arXiv:1512.03385; Misra et al. 2021, arXiv:2010.03045, section 4, and the
authors' code; Hou, Zhou, Feng 2021, arXiv:2103.02907.
"""

from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models import resnet as timm_resnet
from torch import nn

from foveal.layers import CoordinateAttention, TripletAttention, create_layer
from foveal.models.levels import check_out_indices
from foveal.models.stem import small_stem
from foveal.models.trunk import names_own_weights, trunk_cfgs, trunk_weights

resnet: Any = timm_resnet  # annotated too sparsely for the type checker

# Block class and how many blocks each of the four stages has.
TRUNKS = {
    "resnet18": (resnet.BasicBlock, (2, 2, 2, 2)),
    "resnet34": (resnet.BasicBlock, (3, 4, 6, 3)),
    "resnet50": (resnet.Bottleneck, (3, 4, 6, 3)),
    "resnet101": (resnet.Bottleneck, (3, 4, 23, 3)),
}
_LEVELS = 5

default_cfgs = generate_default_cfgs(
    {
        key: cfg
        for trunk in TRUNKS
        for key, cfg in trunk_cfgs(trunk, ("triplet", "coordinate")).items()
    }
)


def init_triplet(network: nn.Module) -> None:
    """Initialise as the authors of triplet attention do, where timm does otherwise.

    Both draw the convolutions, those of the gates too, from N(0, sqrt(2 / (k * k * out))). But the
    projection shortcuts keep PyTorch's own draw, and the gate over height and width begins with a
    BatchNorm of scale 0, so that it is 1/2 everywhere.
    """
    for name, module in network.named_modules():
        layer: Any = module
        if isinstance(module, TripletAttention) and layer.hw is not None:
            nn.init.zeros_(layer.hw.conv.bn.weight)
        elif name.endswith(".downsample.0"):
            layer.reset_parameters()


def init_coordinate(network: nn.Module) -> None:
    """Initialise as the authors of coordinate attention do, where timm does otherwise.

    There is no official ResNet. The rule of their MobileNetV2, convolutions from
    N(0, sqrt(2 / (k * k * out))) and biases 0, is timm's for ResNets but for the layer's biases.
    """
    for module in network.modules():
        layer: Any = module
        if isinstance(module, CoordinateAttention):
            for conv in (layer.conv1, layer.conv_h, layer.conv_w):
                nn.init.zeros_(conv.bias)


_INIT = {"triplet": init_triplet, "coordinate": init_coordinate}


def _create(
    variant: str,
    pretrained: bool,
    layer_args: dict[str, Any],
    *,
    stem_stride: int = 2,
    output_stride: int = 32,
    features_only: bool = False,
    zero_init_last: bool = False,
    **kw: Any,
) -> nn.Module:
    """Build a registered network.

    Args:
        variant: registered name, of a trunk and an attention.
        pretrained: load the plain network's weights into the trunk.
        layer_args: of the attention.
        stem_stride: 2 is the stem for ImageNet, a 7x7 convolution and a max-pool; 1 the stem for
            small pictures, see :func:`small_stem`.
        output_stride: largest total stride; what would be coarser is dilated.
        features_only: return feature maps; ``out_indices`` and ``feature_cls`` as in timm.
        zero_init_last: begin with residual branches that are 0, as timm's plain ResNets do. The
            attention at their end would then see nothing and learn nothing in the first step.
        **kw: arguments of timm's ``ResNet``.
    """
    if stem_stride not in (1, 2):
        raise ValueError(f"stem_stride must be 1 or 2, not {stem_stride!r}")
    if pretrained and stem_stride == 1 and not names_own_weights(kw):
        raise ValueError("the pretrained weights are for the 7x7 stem: leave stem_stride=1 out")
    valid = (8, 16, 32) if stem_stride == 2 else (2, 4, 8, 16, 32)
    if output_stride not in valid:
        given = ", ".join(str(stride) for stride in valid[:-1])
        raise ValueError(
            f"output_stride must be {given} or {valid[-1]} with stem_stride={stem_stride}, "
            f"not {output_stride!r}"
        )
    check_out_indices(kw.get("out_indices"), _LEVELS)
    trunk, _, attention = variant.partition("_")
    block, layers = TRUNKS[trunk]

    def build(**net_args: Any) -> nn.Module:
        network: nn.Module = resnet.ResNet(**net_args)
        if stem_stride == 1:
            small_stem(network)
        _INIT[attention](network)
        return network

    network: nn.Module = build_model_with_cfg(
        build,
        variant,
        pretrained,
        pretrained_strict=False,  # the filter has checked: only the attention's tensors are missing
        pretrained_filter_fn=partial(
            trunk_weights, attention=".se.", adapted={"conv1.": 1, "fc.": 0}, head=("fc.",)
        ),
        features_only=features_only,
        block=block,
        layers=layers,
        block_args={"attn_layer": partial(create_layer, attention, **layer_args)},
        # timm's builder takes the stem's stride for 4 in all, whatever it becomes here.
        output_stride=output_stride if stem_stride == 2 else min(32, 4 * output_stride),
        zero_init_last=zero_init_last,
        **kw,
    )
    return network


@register_model
def resnet18_triplet(
    pretrained: bool = False, *, kernel_size: int = 7, spatial: bool = True, **kw: Any
) -> nn.Module:
    """ResNet-18 with triplet attention."""
    layer_args = {"kernel_size": kernel_size, "spatial": spatial}
    return _create("resnet18_triplet", pretrained, layer_args, **kw)


@register_model
def resnet34_triplet(
    pretrained: bool = False, *, kernel_size: int = 7, spatial: bool = True, **kw: Any
) -> nn.Module:
    """ResNet-34 with triplet attention."""
    layer_args = {"kernel_size": kernel_size, "spatial": spatial}
    return _create("resnet34_triplet", pretrained, layer_args, **kw)


@register_model
def resnet50_triplet(
    pretrained: bool = False, *, kernel_size: int = 7, spatial: bool = True, **kw: Any
) -> nn.Module:
    """ResNet-50 with triplet attention."""
    layer_args = {"kernel_size": kernel_size, "spatial": spatial}
    return _create("resnet50_triplet", pretrained, layer_args, **kw)


@register_model
def resnet101_triplet(
    pretrained: bool = False, *, kernel_size: int = 7, spatial: bool = True, **kw: Any
) -> nn.Module:
    """ResNet-101 with triplet attention."""
    layer_args = {"kernel_size": kernel_size, "spatial": spatial}
    return _create("resnet101_triplet", pretrained, layer_args, **kw)


@register_model
def resnet18_coordinate(pretrained: bool = False, *, reduction: int = 32, **kw: Any) -> nn.Module:
    """ResNet-18 with coordinate attention."""
    return _create("resnet18_coordinate", pretrained, {"reduction": reduction}, **kw)


@register_model
def resnet34_coordinate(pretrained: bool = False, *, reduction: int = 32, **kw: Any) -> nn.Module:
    """ResNet-34 with coordinate attention."""
    return _create("resnet34_coordinate", pretrained, {"reduction": reduction}, **kw)


@register_model
def resnet50_coordinate(pretrained: bool = False, *, reduction: int = 32, **kw: Any) -> nn.Module:
    """ResNet-50 with coordinate attention."""
    return _create("resnet50_coordinate", pretrained, {"reduction": reduction}, **kw)


@register_model
def resnet101_coordinate(pretrained: bool = False, *, reduction: int = 32, **kw: Any) -> nn.Module:
    """ResNet-101 with coordinate attention."""
    return _create("resnet101_coordinate", pretrained, {"reduction": reduction}, **kw)
