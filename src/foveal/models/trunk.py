"""Published weights of a plain network for the trunk of one with attention."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from timm.models import get_pretrained_cfg
from torch import nn

from foveal.models.checkpoints import compare

_logger = logging.getLogger(__name__)


def trunk_cfgs(plain: str, attentions: Iterable[str]) -> dict[str, Any]:
    """Return timm's description of a plain network for each name with attention.

    Args:
        plain: a name of timm, such as ``mobilenetv2_100``.
        attentions: endings of the new names, such as ``coordinate``.

    Returns:
        ``name.tag`` to description, for :func:`timm.models.generate_default_cfgs`. The tag says
        that only the trunk's weights are published, or that none are.
    """
    cfg: Any = get_pretrained_cfg(plain)
    tag = f"trunk_{cfg.tag}" if cfg.has_weights else "untrained"
    return {f"{plain}_{attention}.{tag}": dataclasses.replace(cfg) for attention in attentions}


def names_own_weights(kw: Mapping[str, Any]) -> bool:
    """Return whether a caller's arguments name weights instead of those that are published."""
    cfg = kw.get("pretrained_cfg")  # a string is the tag of published ones
    return bool(kw.get("pretrained_cfg_overlay")) or bool(cfg and not isinstance(cfg, str))


def trunk_weights(
    state: dict[str, torch.Tensor],
    network: nn.Module,
    *,
    attention: str,
    adapted: Mapping[str, int],
    head: tuple[str, ...],
    replaced: tuple[str, ...] = (),
) -> dict[str, torch.Tensor]:
    """Return the weights that the network has a place for; say which of its tensors are new.

    Args:
        state: weights of the plain network.
        network: the one with attention.
        attention: what the keys of new layers hold and those of the plain network do not:
            ``.se.``, the attribute's name between dots.
        adapted: prefixes of what timm fits to ``in_chans`` and ``num_classes`` afterwards, and the
            dimension in which it does.
        head: prefixes of what a network for features does not have.
        replaced: what the keys of those tensors of the plain network hold in whose place the new
            layers are: ``.se.conv_reduce.``. They are left out, and logged.

    Raises:
        ValueError: the weights lack a tensor of the trunk, or hold one that it does not have, or
            only a part of an attention layer.
    """
    own = network.state_dict()
    misfit = compare(own, state)
    begun = {_layer(key, attention) for key in own if attention in key and key in state}
    fresh = [k for k in misfit.missing if attention in k and _layer(k, attention) not in begun]
    left_out = [key for key in misfit.unexpected if any(part in key for part in replaced)]
    known = {key for key in misfit.unexpected if key.startswith(head)}.union(left_out)
    wrong = dataclasses.replace(
        misfit,
        missing=[key for key in misfit.missing if key not in fresh],
        unexpected=[key for key in misfit.unexpected if key not in known],
        reshaped={
            key: (given, needed)
            for key, (given, needed) in misfit.reshaped.items()
            if not any(
                key.startswith(prefix) and _agree(given, needed, dimension)
                for prefix, dimension in adapted.items()
            )
        },
    )
    if wrong:
        raise ValueError(f"the pretrained weights do not fit the network's trunk: {wrong}")
    if fresh:
        layers = sorted({_layer(key, attention) for key in fresh})
        _logger.warning(
            "%d tensors of %d attention layers are new, everything else is pretrained: %s",
            len(fresh),
            len(layers),
            ", ".join(layers),
        )
    if left_out:
        _logger.warning(
            "%d pretrained tensors are left out, because these layers take the place of theirs",
            len(left_out),
        )
    return {key: value for key, value in state.items() if key not in misfit.unexpected}


def _layer(key: str, attention: str) -> str:
    """Return the name of the attention layer that a key belongs to."""
    return key[: key.index(attention)] + attention[:-1]


def _agree(given: tuple[int, ...], needed: tuple[int, ...], dimension: int) -> bool:
    """Return whether two shapes are the same but for this dimension."""
    rest = [shape[:dimension] + shape[dimension + 1 :] for shape in (given, needed)]
    return len(given) == len(needed) and rest[0] == rest[1]
