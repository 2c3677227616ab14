"""Checkpoints of the authors' NOUN and PRONOUN (tim-learn/NOUN).

The classifier holds every tensor of its trunk twice: under the ResNet's own name and under
``feature_layers.<i>``, the same one. The discriminator holds a layer, ``ad_layer2``, that is never
called. Both are dropped, after the doubles have been compared.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.models import resnet as timm_resnet
from torch import nn

from foveal.models.bottleneck_classifier import BottleneckClassifier
from foveal.models.checkpoints import some
from foveal.models.domain_discriminator import DomainDiscriminator
from foveal.official.pictures import picture_config
from foveal.official.renaming import check_keys, load_renamed

DESCRIPTION = "tim-learn/NOUN (the classifier of NOUN and PRONOUN, and their discriminator)"

State = Mapping[str, torch.Tensor]

timm_blocks: Any = timm_resnet  # annotated too sparsely for the type checker

_DOUBLE = re.compile(r"feature_layers\.(\d+)\.(.+)")
# What the authors' Sequential of the trunk numbers; its other members have no tensors.
_TRUNK = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}
_DISCRIMINATOR = {"ad_layer1": "0", "ad_layer3": "2"}
_UNUSED = ("ad_layer2.weight", "ad_layer2.bias")
_WHAT = "NOUN's classifier"
_KNOWN: dict[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
}


def recognise(state: State) -> bool:
    """Return whether the weights are a classifier's or a discriminator's, complete or not."""
    doubled = any(_DOUBLE.fullmatch(key) for key in state)
    return "ad_layer1.weight" in state or (doubled and "bottleneck.weight" in state)


def build(state: State) -> nn.Module:
    """Return the foveal network with the authors' weights.

    Args:
        state: the authors' state_dict, of a classifier or of a discriminator.

    Returns:
        A :class:`~foveal.models.bottleneck_classifier.BottleneckClassifier` on timm's ResNet, or a
        :class:`~foveal.models.domain_discriminator.DomainDiscriminator`, which gives logits where
        the authors' has a sigmoid.

    Raises:
        ValueError: keys or shapes that are missing, too many or inconsistent; doubles that differ.
    """
    return _discriminator(state) if "ad_layer1.weight" in state else _classifier(state)


def _discriminator(state: State) -> nn.Module:
    kept = {key: value for key, value in state.items() if key not in _UNUSED}
    what = "NOUN's discriminator"
    with torch.device("meta"):
        check_keys(DomainDiscriminator(8, 8), kept, _DISCRIMINATOR, what)
    hidden, width = kept["ad_layer1.weight"].shape
    network = DomainDiscriminator(width, hidden)
    load_renamed(network, kept, _DISCRIMINATOR, what)
    return network


def _classifier(state: State) -> nn.Module:
    own = _without_doubles(state)
    bottleneck = "layer1.0.conv3.weight" in own
    depths = tuple(
        1 + max((int(key.split(".")[1]) for key in own if _of_stage(key, s)), default=0)
        for s in (1, 2, 3, 4)
    )
    with torch.device("meta"):
        template = _network(bottleneck, depths, 3, 8, 8)
        modules = _modules(template)
        check_keys(template, own, modules, _WHAT)
    in_chans, width = own["conv1.weight"].shape[1], own["bottleneck.weight"].shape[0]
    network = _network(bottleneck, depths, in_chans, width, own["fc.weight"].shape[0])
    load_renamed(network, own, modules, _WHAT)
    return network


def _of_stage(key: str, stage: int) -> bool:
    return re.match(rf"layer{stage}\.\d+\.", key) is not None


def _without_doubles(state: State) -> dict[str, torch.Tensor]:
    """Return the tensors under the ResNet's own names.

    Raises:
        ValueError: a tensor of ``feature_layers`` differs from the one that it doubles, or is none.
    """
    own = {key: value for key, value in state.items() if not _DOUBLE.fullmatch(key)}
    other = []
    for key, value in state.items():
        match = _DOUBLE.fullmatch(key)
        if match is None:
            continue
        first = own.get(f"{_TRUNK.get(int(match[1]), '')}.{match[2]}")
        if first is None or first.shape != value.shape or not first.equal(value):
            other.append(key)
    if other:
        raise ValueError(
            f"the checkpoint does not fit {_WHAT}: not the double of a tensor of the trunk: "
            f"{some(other)}"
        )
    return own


def _modules(network: nn.Module) -> dict[str, str]:
    """Return the authors' names and foveal's of all modules that are called differently."""
    trunk = {
        name.removeprefix("backbone."): name
        for name, _ in network.named_modules()
        if name.startswith("backbone.")
    }
    return {**trunk, "fc": "classifier"}


def _network(
    bottleneck: bool, depths: tuple[int, ...], in_chans: int, width: int, num_classes: int
) -> BottleneckClassifier:
    block = timm_blocks.Bottleneck if bottleneck else timm_blocks.BasicBlock
    trunk = timm_blocks.ResNet(block, depths, num_classes=0, in_chans=in_chans)
    kind = "bottleneck" if bottleneck else "basic"
    trunk.default_cfg = trunk.pretrained_cfg = picture_config(
        _KNOWN.get((kind, depths), "resnet"),
        in_chans,
        num_classes,
        first_conv="backbone.conv1",
        classifier="classifier",
    )
    return BottleneckClassifier(trunk, num_classes, bottleneck_dim=width, in_chans=in_chans)
