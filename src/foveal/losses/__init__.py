"""Training losses by name."""

import inspect
from typing import Any

import torch
from torch import nn

from foveal.names import unknown

__all__ = ["LOSSES", "create_loss"]

LOSSES: dict[str, type[nn.Module]] = {"cross_entropy": nn.CrossEntropyLoss}


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
    loss_class = LOSSES[name]
    own = inspect.signature(loss_class).parameters
    given = {"num_classes": num_classes, "weight": weight}
    given = {key: value for key, value in given.items() if key in own}
    # The first two are given above, the others could make more of the loss than one number.
    fixed = ("num_classes", "weight", "size_average", "reduce", "reduction")
    known = [p for p in own if p not in fixed]
    for key in args:
        if key not in known:
            raise ValueError(unknown(f"argument of the loss {name}", key, known))
    loss = loss_class(**given, **args)
    try:  # values out of range are found by the first use only
        loss(torch.zeros(2, num_classes), torch.zeros(2, dtype=torch.int64))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the loss {name} cannot be used so: {reason}") from error
    return loss
