"""The layer that turns a gradient round, and how strongly."""

import math
from typing import Any

import torch
from torch import Tensor


def grl_coefficient(
    step: float, max_steps: float, alpha: float = 10.0, low: float = 0.0, high: float = 1.0
) -> float:
    """Return the strength of the reversal, rising from ``low`` to ``high`` in training.

    low + (high - low) (2 / (1 + exp(-alpha step / max_steps)) - 1). It depends on the step alone,
    so that a resumed run goes on exactly.

    Source: Ganin et al. 2016, arXiv:1505.07818.
    Differs from the official code of NOUN: that counts its own calls and takes 10000 for
    ``max_steps`` whatever is asked for.

    Args:
        step: steps taken; that code's first has 1.
        max_steps: where the rise ends.
        alpha: how fast it is.
        low: at step 0.
        high: the limit.

    Raises:
        ValueError: ``max_steps`` is not above 0.

    Example:
        >>> round(grl_coefficient(500, 10_000), 4)
        0.2449
    """
    if not max_steps > 0:
        raise ValueError(f"max_steps must be above 0, not {max_steps}")
    # 2 / (1 + exp(-x)) - 1 without overflow
    return low + (high - low) * math.tanh(0.5 * alpha * float(step) / float(max_steps))


def grad_reverse(x: Tensor, coeff: float | Tensor) -> Tensor:
    """Return ``x``, whose gradient is multiplied by ``-coeff`` on the way back.

    Source: Ganin and Lempitsky 2015, arXiv:1409.7495.

    Args:
        x: any shape.
        coeff: strength, usually of :func:`grl_coefficient`; a tensor [] spares ``torch.compile`` a
            number that changes.
    """
    reversed_x: Tensor = _Reversal.apply(x, coeff)
    return reversed_x


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, coeff: float | Tensor) -> Tensor:
        ctx.coeff = coeff
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.coeff * grad, None
