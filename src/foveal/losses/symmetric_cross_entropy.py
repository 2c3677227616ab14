"""Symmetric cross entropy: cross entropy and, for wrong labels, its reverse.

Source: Wang et al. 2019, arXiv:1908.06112, equations 5 to 7.
"""

import math

import torch
from torch import Tensor, nn

from foveal.losses.rows import check_reduction, to_rows


def symmetric_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 6.0,
    beta: float = 0.1,
    log_zero: float = -4.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Return :math:`-\alpha \sum_k t_k \log p_k - \beta \sum_k p_k \log t_k`, p = softmax(logits).

    Args:
        logits: [B, K, ...].
        target: class indices int64 [B, ...], or probabilities t of the logits' shape.
        alpha: weight of the cross entropy.
        beta: weight of the reverse cross entropy.
        log_zero: stands for log 0 and is the least logarithm of a target's probability, below 0.
        weight: of each class, [K]; a sample's loss is weighted by its class (by the mean over its
            probabilities).
        ignore_index: class index of the samples that count for nothing.
        reduction: ``mean``, ``sum`` or ``none``, as in :class:`torch.nn.CrossEntropyLoss`.
    """
    rows = to_rows(logits, target, ignore_index)
    log_p = rows.logits.log_softmax(1)
    nll = -log_p if weight is None else -log_p * weight.to(log_p)
    if rows.indices:
        reverse = -log_zero * -torch.expm1(rows.sum_over_target(log_p))
    else:
        reverse = -(log_p.exp() * rows.target.log().clamp_min(log_zero)).sum(1)
    if weight is not None:
        reverse = reverse * rows.sum_over_target(weight.to(log_p).expand_as(log_p))
    losses = alpha * rows.sum_over_target(nll) + beta * reverse
    return rows.reduce(losses, weight, reduction)


class SymmetricCrossEntropy(nn.Module):
    """Symmetric cross entropy; see :func:`symmetric_cross_entropy`.

    The defaults are those that the online label smoothing authors used on CIFAR-100; for CIFAR-10
    they took alpha 0.1 and beta 1. The paper takes log 0 = -4.

    Args:
        alpha: weight of the cross entropy, at least 0.
        beta: weight of the reverse cross entropy, at least 0.
        log_zero: stands for log 0, below 0.
        weight: of each class, [K].
        ignore_index: class index of the samples that count for nothing.
        reduction: ``mean``, ``sum`` or ``none``.

    Raises:
        ValueError: an argument out of range.
    """

    weight: Tensor | None

    def __init__(
        self,
        alpha: float = 6.0,
        beta: float = 0.1,
        log_zero: float = -4.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, not {value}")
        if not -math.inf < log_zero < 0:
            raise ValueError(f"log_zero must be below 0 and finite, not {log_zero}")
        check_reduction(reduction)
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero
        self.ignore_index, self.reduction = ignore_index, reduction
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits [B, K, ...]."""
        return symmetric_cross_entropy(
            logits,
            target,
            alpha=self.alpha,
            beta=self.beta,
            log_zero=self.log_zero,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"alpha={self.alpha}, beta={self.beta}, log_zero={self.log_zero}"
