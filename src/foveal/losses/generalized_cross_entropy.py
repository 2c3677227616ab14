"""Generalised cross entropy, between cross entropy and mean absolute error.

Source: Zhang and Sabuncu 2018, arXiv:1805.07836, equation 6.
"""

import torch
from torch import Tensor, nn

from foveal.losses.rows import check_reduction, to_rows


def generalized_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    q: float = 0.7,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Return :math:`\sum_k t_k (1 - p_k^q) / q` with p = softmax(logits).

    Near q = 0 it is cross entropy, at q = 1 the mean absolute error 1 - p_y, which a wrong label
    pulls less. Probabilities are never taken to the power directly, so that logits of any size
    keep finite losses and gradients.

    Args:
        logits: [B, K, ...].
        target: class indices int64 [B, ...], or probabilities t of the logits' shape.
        q: in (0, 1].
        weight: of each class, [K].
        ignore_index: class index of the samples that count for nothing.
        reduction: ``mean``, ``sum`` or ``none``, as in :class:`torch.nn.CrossEntropyLoss`.
    """
    rows = to_rows(logits, target, ignore_index)
    losses = -torch.expm1(q * rows.logits.log_softmax(1)) / q
    if weight is not None:
        losses = losses * weight.to(losses)
    return rows.reduce(rows.sum_over_target(losses), weight, reduction)


class GeneralizedCrossEntropy(nn.Module):
    """Generalised cross entropy; see :func:`generalized_cross_entropy`.

    Args:
        q: in (0, 1]; 0.7 in the paper.
        weight: of each class, [K].
        ignore_index: class index of the samples that count for nothing.
        reduction: ``mean``, ``sum`` or ``none``.

    Raises:
        ValueError: an argument out of range.
    """

    weight: Tensor | None

    def __init__(
        self,
        q: float = 0.7,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if not 0 < q <= 1:
            raise ValueError(f"q must lie in (0, 1], not {q}")
        check_reduction(reduction)
        self.q, self.ignore_index, self.reduction = q, ignore_index, reduction
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits [B, K, ...]."""
        return generalized_cross_entropy(
            logits,
            target,
            q=self.q,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"q={self.q}"
