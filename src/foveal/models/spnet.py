"""SPNet: strip pooling inside a dilated ResNet, two mixed pooling modules behind it.

The trunk is timm's ``resnet50s`` or ``resnet101s``, the deep-stem networks that the authors use,
and keeps timm's keys; a gate stands in its blocks after the activation of the 3x3 convolution. The
decoder works behind any other backbone too.

Source: Hou, Zhang, Cheng, Feng 2020, arXiv:2003.13328, section 3.3, and the authors' code.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.models import resnet as timm_resnet
from torch import nn

from foveal.layers import MixedPooling, PyramidPooling, create_layer
from foveal.models.options import check_flag
from foveal.models.segmentation_backbone import inner, segmentation_backbone
from foveal.models.segmentation_network import SegmentationNetwork, check_num_classes, fcn_head
from foveal.names import unknown

resnet: Any = timm_resnet  # annotated too sparsely for the type checker

_CONTEXTS = ("mixed", "pyramid")
_logger = logging.getLogger(__name__)


def spnet(
    *,
    backbone: str = "resnet50s",
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    output_stride: int = 8,
    gate: str | None = "auto",
    context: str | None = "mixed",
    auxiliary: bool = True,
    backbone_args: Mapping[str, Any] | None = None,
    backbone_checkpoint: str | Path = "",
) -> SegmentationNetwork:
    """Build SPNet.

    In a ResNet of bottlenecks the three blocks of the last stage are dilated by 4, 8 and 16 (half
    of that at output stride 16), as in the official network; gates are new even where the trunk is
    pretrained.

    Args:
        backbone: any classification network; ``resnet50s`` and ``resnet101s`` give the official
            ones.
        pretrained: load the backbone's published weights.
        num_classes: K; None gives 21.
        in_chans: channels of the picture.
        output_stride: of the maps that the head sees, 8 as in the official network, 16 or 32.
        gate: layer of :func:`foveal.layers.create_layer` in the last block of each stage and in all
            of the last stage of a ResNet of bottlenecks; ``auto`` is ``strip`` there and nothing in
            other backbones (``foveal.insert`` puts layers into those); None leaves it out.
        context: what the head adds to the last map: ``mixed`` are two mixed pooling modules on half
            of its channels; ``pyramid`` is PSPNet's pyramid pooling on all of them; None is nothing
            on half of them.
        auxiliary: with a second head on the stage before the last, which is run in training only.
        backbone_args: further arguments of the backbone, such as ``{"channels": (32, 64, 128,
            256)}`` for a ResNet of half width.
        backbone_checkpoint: its weights as a classification network, instead of published ones.

    Raises:
        ValueError: an unknown name, an impossible value, a backbone that cannot have the stride or
            the gates.
        TypeError: an argument of a wrong type, or one that the backbone does not have or the model
            decides.
    """
    classes = check_num_classes(num_classes)
    check_flag("auxiliary", auxiliary)
    if context is not None and context not in _CONTEXTS:
        raise ValueError(unknown("context", context, _CONTEXTS))

    def levels(strides: Sequence[int]) -> tuple[int, ...]:
        return (len(strides) - 2, len(strides) - 1) if auxiliary else (len(strides) - 1,)

    trunk: Any = segmentation_backbone(
        backbone, levels, output_stride, in_chans, pretrained, backbone_args, backbone_checkpoint
    )
    trained = pretrained or backbone_checkpoint
    stages = _bottlenecks(trunk)
    if stages:
        _multi_grid(stages[-1])
        if not trained:
            _start_with_whole_branches(stages)
    elif gate not in (None, "auto"):
        raise ValueError(
            f"gate={gate!r} is for ResNets of bottlenecks, which {backbone!r} is not: leave it "
            "out, and put the layer where you want it with foveal.insert"
        )
    if stages and gate is not None:
        _add_gates(stages, "strip" if gate == "auto" else gate)
        if trained:
            _logger.warning("the gates in the backbone are new, everything else is pretrained")
    channels = trunk.feature_info.channels()
    second = fcn_head(channels[-2], channels[-2] // 4, classes) if auxiliary else None
    return SegmentationNetwork(
        trunk,
        decoder(channels[-1], classes, context),
        auxiliary_head=second,
        classifier=["head.score.classifier"] + ["auxiliary_head.classifier"] * auxiliary,
        num_classes=classes,
        in_chans=in_chans,
        align_corners=True,
    )


def decoder(channels: int, num_classes: int, context: str | None = "mixed") -> nn.Sequential:
    """Return the head: [B, channels, H, W] to logits [B, num_classes, H, W]."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    width = channels
    if context == "pyramid":
        pyramid = PyramidPooling(channels)
        parts["context"], width = pyramid, pyramid.out_channels
    else:
        width = channels // 2
        parts["reduce"] = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        if context == "mixed":
            parts["context"] = nn.Sequential(MixedPooling(width), MixedPooling(width))
    parts["score"] = fcn_head(width, channels // 4, num_classes)
    return nn.Sequential(parts)


def gated(block: nn.Module, gate: nn.Module) -> None:
    """Put a layer into a bottleneck, in place, between its 3x3 and its last 1x1 convolution."""
    bottleneck: Any = block
    bottleneck.act2 = nn.Sequential(OrderedDict(act=bottleneck.act2, gate=gate))


def _bottlenecks(backbone: nn.Module) -> list[list[Any]]:
    """Return the blocks of each stage of a ResNet of bottlenecks; nothing for other networks."""
    network: Any = inner(backbone)
    if not isinstance(network, resnet.ResNet):
        return []
    stages = [list(stage) for stage in (network.layer1, network.layer2, network.layer3)]
    stages.append(list(network.layer4))
    blocks = [block for stage in stages for block in stage]
    return stages if all(isinstance(block, resnet.Bottleneck) for block in blocks) else []


def _multi_grid(stage: list[Any]) -> None:
    """Dilate the 3x3 convolutions of a stage by 1, 2, 4, ... times its own dilation."""
    rate = stage[-1].dilation  # not of its convolution: the first block of a stage has less
    for number, block in enumerate(stage):
        dilation = rate * 2**number
        block.conv2.dilation = block.conv2.padding = (dilation, dilation)


def _start_with_whole_branches(stages: list[list[Any]]) -> None:
    """Undo timm's residual branches of 0: gates in them would learn nothing in the first step."""
    for stage in stages:
        for block in stage:
            nn.init.ones_(block.bn3.weight)


def _add_gates(stages: list[list[Any]], name: str) -> None:
    """Put gates into the last block of each stage and into all blocks of the last."""
    for block in [*(stage[-1] for stage in stages[:-1]), *stages[-1]]:
        weight = block.conv2.weight
        gate = create_layer(name, block.conv2.out_channels, device=weight.device)
        for module in gate.modules():
            if isinstance(module, nn.Conv2d):  # as everything else in the trunk
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        gated(block, gate)
