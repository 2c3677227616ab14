"""Backbones of segmentation networks: strides, the levels that a head reads, weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveal.models.backbones import create_backbone
from foveal.models.checkpoints import (
    find_state_dict,
    load_weights,
    read_checkpoint,
    with_counters,
)
from foveal.models.options import check_whole

_STRIDES = (8, 16, 32)
# timm's wrapper that keeps a network's own names, and what a few networks have instead: only their
# class for feature maps can be dilated.
_KINDS: tuple[dict[str, Any], ...] = ({"feature_cls": "getter"}, {})
# What a model's ``backbone_args`` cannot hold, and why.
_DECIDED = {
    **dict.fromkeys(
        ("pretrained", "num_classes", "in_chans", "output_stride"), "it is an argument of the model"
    ),
    **dict.fromkeys(
        ("features_only", "out_indices", "feature_cls", "feature_cfg"),
        "the head decides which maps it sees",
    ),
    "name": "it is the model's backbone",
    "checkpoint_path": "it is the model's backbone_checkpoint",
}


def segmentation_backbone(
    name: str,
    levels: Callable[[Sequence[int]], Sequence[int]],
    output_stride: int,
    in_chans: int = 3,
    pretrained: bool = False,
    backbone_args: Mapping[str, Any] | None = None,
    checkpoint: str | Path = "",
) -> nn.Module:
    """Build a network for feature maps whose coarsest has a given stride.

    Args:
        name: of any classification network of foveal or timm.
        levels: strides of all its maps, from fine to coarse, to the indices of those it returns.
        output_stride: of the coarsest map, 8, 16 or 32; later stages are dilated, not strided.
        in_chans: channels of the picture.
        pretrained: load published weights.
        backbone_args: further arguments of the network.
        checkpoint: weights of the classification network to load instead, .safetensors or a
            state_dict of ``torch.save``; all but the classifier must fit.

    Returns:
        The network; it returns a list of maps, which ``feature_info`` describes. Its modules have
        the classification network's names, mostly under ``model.``.

    Raises:
        ValueError: an unknown name, a stride that the network cannot have, a checkpoint that does
            not fit.
        TypeError: an argument of a wrong type, or one that the network does not have or that is
            decided elsewhere.
        OSError: weights are missing.
    """
    check_whole("output_stride", output_stride)
    if output_stride not in _STRIDES:
        raise ValueError(f"output_stride must be 8, 16 or 32, not {output_stride}")
    kw = {"in_chans": in_chans, **check_arguments(backbone_args, _DECIDED)}
    state = find_state_dict(read_checkpoint(checkpoint)) if checkpoint else None
    kind = {**_kind(name, output_stride, kw), **kw}
    with torch.device("meta"):
        indices = levels(_strides(name, kind))
    backbone = create_backbone(
        name,
        pretrained=pretrained and state is None,
        features_only=True,
        out_indices=tuple(indices),
        **kind,
    )
    if state is not None:
        load_trunk(backbone, name, kw, state, f"the checkpoint {str(checkpoint)!r}")
    return backbone


def check_arguments(
    backbone_args: Mapping[str, Any] | None, decided: Mapping[str, str]
) -> Mapping[str, Any]:
    """Return the arguments that a model's caller may give its backbone.

    Args:
        backbone_args: theirs; None: none.
        decided: those that they cannot give, and why.

    Raises:
        TypeError: they are no mapping, or hold what is decided elsewhere.
    """
    if backbone_args is None:
        return {}
    if not isinstance(backbone_args, Mapping) or not all(isinstance(k, str) for k in backbone_args):
        raise TypeError(
            f"backbone_args must map names of arguments to values, not {backbone_args!r}"
        )
    for key in backbone_args:
        if key in decided:
            raise TypeError(f"backbone_args.{key} cannot be given: {decided[key]}")
    return backbone_args


def _kind(name: str, output_stride: int, kw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with which the network's coarsest map has this stride."""
    with torch.device("meta"):
        strides = _strides(name, {**_KINDS[0], **kw})
        if strides[-1] == output_stride:
            return _KINDS[0]
        for kind in _KINDS if strides[-1] > output_stride else ():
            dilated = {**kind, "output_stride": output_stride}
            try:
                if _strides(name, {**dilated, **kw})[-1] == output_stride:
                    return dilated
            except Exception:  # networks refuse strides in ways of their own
                continue
    own = f"output_stride={strides[-1]}, or " if strides[-1] in _STRIDES else ""
    raise ValueError(
        f"the backbone {name!r} cannot have output_stride={output_stride}: its maps have strides "
        f"{', '.join(map(str, dict.fromkeys(strides)))}; give {own}a backbone that can be dilated, "
        "such as a ResNet or MobileNetV2"
    )


def _strides(name: str, kw: Mapping[str, Any]) -> list[int]:
    network: Any = create_backbone(name, features_only=True, **kw)
    strides: list[int] = network.feature_info.reduction()
    return strides


def load_trunk(
    backbone: nn.Module,
    name: str,
    kw: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    source: str,
) -> None:
    """Load the weights of a classification network into its trunk, all of them."""
    trunk = inner(backbone)
    own = trunk.state_dict()
    with torch.device("meta"):
        whole = create_backbone(name, **kw).state_dict()
    classifier = whole.keys() - own.keys()
    given = with_counters(own, {k: v for k, v in state.items() if k not in classifier})
    load_weights(trunk, given, source)


def inner(backbone: nn.Module) -> nn.Module:
    """Return the network itself, out of timm's wrapper for feature maps."""
    model = getattr(backbone, "model", None)
    return model if isinstance(model, nn.Module) else backbone
