"""Training losses by name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from foveal.losses.attention_similarity import (
    attention_similarity,
    released_attention_similarity,
)
from foveal.losses.generalized_cross_entropy import (
    GeneralizedCrossEntropy,
    generalized_cross_entropy,
)
from foveal.losses.map_cross_entropy import balanced_map_cross_entropy, map_cross_entropy
from foveal.losses.map_loss import MAP_LOSSES, MapLoss
from foveal.losses.ohem import OhemCrossEntropy, ohem_cross_entropy
from foveal.losses.online_label_smoothing import OnlineLabelSmoothing
from foveal.losses.symmetric_cross_entropy import SymmetricCrossEntropy, symmetric_cross_entropy
from foveal.losses.with_auxiliary import WithAuxiliary
from foveal.names import unknown

__all__ = [
    "LOSSES",
    "MAP_LOSSES",
    "GeneralizedCrossEntropy",
    "MapLoss",
    "OhemCrossEntropy",
    "OnlineLabelSmoothing",
    "SymmetricCrossEntropy",
    "WithAuxiliary",
    "attention_similarity",
    "balanced_map_cross_entropy",
    "create_loss",
    "generalized_cross_entropy",
    "map_cross_entropy",
    "ohem_cross_entropy",
    "released_attention_similarity",
    "symmetric_cross_entropy",
]

LOSSES: dict[str, Callable[..., nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "label_smoothing": functools.partial(nn.CrossEntropyLoss, label_smoothing=0.1),
    "symmetric_cross_entropy": SymmetricCrossEntropy,
    "generalized_cross_entropy": GeneralizedCrossEntropy,
    "ohem_cross_entropy": OhemCrossEntropy,
    "online_label_smoothing": OnlineLabelSmoothing,
    "online_label_smoothing_cifar": functools.partial(OnlineLabelSmoothing, init="zeros"),
    "online_label_smoothing_finegrained": functools.partial(
        OnlineLabelSmoothing, hard_weight=1.0, soft_weight=1.0, freeze_at=0.88
    ),
}
"""Every loss over classes: ``loss(logits [B, K, ...], target)``, the target class indices
[B, ...] or probabilities [B, K, ...]."""


def create_loss(
    name: str, num_classes: int, weight: torch.Tensor | None = None, /, **args: Any
) -> nn.Module:
    """Return a loss over classes: ``loss(logits [B, K, ...], target) -> scalar``.

    Args:
        name: one of ``LOSSES``.
        num_classes: K.
        weight: weight of each class, [K].
        **args: further arguments of the loss, such as ``label_smoothing=0.1``.

    Raises:
        ValueError: unknown name or argument; the message has the nearest one.
    """
    if name not in LOSSES:
        raise ValueError(unknown("loss", name, LOSSES))
    make = LOSSES[name]
    own = inspect.signature(make).parameters
    given = {"num_classes": num_classes, "weight": weight}
    given = {key: value for key, value in given.items() if key in own}
    # The first two are given above, the others could make more of the loss than one number.
    fixed = ("num_classes", "weight", "size_average", "reduce", "reduction")
    known = [p for p in own if p not in fixed]
    for key in args:
        if key not in known:
            raise ValueError(unknown(f"argument of the loss {name}", key, known))
        _check_kind(name, key, args[key], own[key].default)
    if weight is not None and weight.shape != (num_classes,):
        raise ValueError(
            f"the weight of a loss must have one number for each of {num_classes} classes, "
            f"not {list(weight.shape)}"
        )
    device = None if weight is None else weight.device
    try:
        loss = make(**given, **args)
        if device is None or device.type != "meta":
            # Values out of range that torch finds at the first use; eval mode collects nothing.
            logits = torch.zeros(2, num_classes, device=device)
            loss.eval()(logits, torch.zeros(2, dtype=torch.int64, device=device))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the loss {name} cannot be used so: {reason}") from error
    return loss.train()


def _check_kind(loss: str, key: str, value: Any, default: Any) -> None:
    """Raise ValueError unless a value is of the kind of an argument's default; None: a number."""
    kinds: dict[type, tuple[str, tuple[type, ...]]] = {
        str: ("a word", (str,)),
        int: ("a whole number", (int,)),
        float: ("a number", (int, float)),
        type(None): ("a number or None", (int, float, type(None))),
    }
    expected, accepted = kinds[type(default)]
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise ValueError(f"argument {key} of the loss {loss} must be {expected}, not {value!r}")
