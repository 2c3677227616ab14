"""Logits and targets of any shape as rows, and the losses of rows as one number.

As in :class:`torch.nn.CrossEntropyLoss`: targets are class indices or probabilities, pixels are
samples, samples of ``ignore_index`` count for nothing, and with class weights a mean over indices
is divided by the sum of the samples' weights. Where nothing counts the mean is 0 (torch: nan).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

REDUCTIONS = ("mean", "sum", "none")


@dataclass(frozen=True)
class Rows:
    """A batch as N samples.

    Attributes:
        logits: [N, K], float32 at least.
        target: class indices int64 [N], 0 where ignored; or probabilities [N, K].
        counted: bool [N], False where ignored; None where every sample counts.
        shape: shape of the unreduced loss, [B, ...].
    """

    logits: Tensor
    target: Tensor
    counted: Tensor | None
    shape: torch.Size

    @property
    def indices(self) -> bool:
        """Whether the target holds class indices."""
        return self.target.ndim == 1

    def sum_over_target(self, values: Tensor) -> Tensor:
        """Return for each row the value at its class, or the mean under its probabilities.

        Args:
            values: one for each class, [N, K].
        """
        if self.indices:
            return values.gather(1, self.target[:, None])[:, 0]
        return (self.target * values).sum(1)

    def reduce(self, losses: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        """Return the mean, the sum, or the losses in their own shape.

        Args:
            losses: of the rows, weighted already, [N].
            weight: of the classes, [K]; only for the mean.
            reduction: one of ``REDUCTIONS``.
        """
        if self.counted is not None:
            losses = losses.where(self.counted, 0.0)
        if reduction == "none":
            return losses.reshape(self.shape)
        by_weight = weight is not None and self.indices
        if reduction == "sum" or not (by_weight or self.counted is not None):
            return losses.mean() if reduction == "mean" else losses.sum()
        parts = torch.ones_like(losses)
        if weight is not None and self.indices:
            parts = weight.to(losses)[self.target]
        if self.counted is not None:
            parts = parts.where(self.counted, 0.0)
        return losses.sum() / parts.sum().clamp_min(torch.finfo(parts.dtype).tiny)


def to_rows(logits: Tensor, target: Tensor, ignore_index: int = -100) -> Rows:
    """Return a batch as rows.

    Args:
        logits: [B, K] or [B, K, ...].
        target: class indices int64 [B, ...], or probabilities of the logits' shape.
        ignore_index: class index of the samples that count for nothing.

    Raises:
        ValueError: the shapes do not fit, or indices are no whole numbers.
    """
    shape = torch.Size((*logits.shape[:1], *logits.shape[2:]))
    indices = target.shape == shape
    if logits.ndim < 2 or not (indices or target.shape == logits.shape):
        raise ValueError(
            f"logits must be [B, K, ...] and targets class indices [B, ...] or probabilities "
            f"[B, K, ...], not {list(logits.shape)} and {list(target.shape)}"
        )
    if indices == (target.is_floating_point() or target.dtype == torch.bool):
        kind = "class indices must be int64" if indices else "probabilities must be floats"
        raise ValueError(f"targets of shape {list(target.shape)}: {kind}, not {target.dtype}")
    classes = logits.shape[1]
    if logits.dtype != torch.float64:
        logits = logits.float()
    logits = logits.movedim(1, -1).reshape(-1, classes)
    if not indices:
        target = target.to(logits.dtype).movedim(1, -1).reshape(-1, classes)
        return Rows(logits, target, None, shape)
    target = target.reshape(-1).long()
    counted = target != ignore_index
    return Rows(logits, target.where(counted, 0), counted, shape)


def check_reduction(reduction: str) -> None:
    """Raise ValueError for a reduction that there is not."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be {', '.join(REDUCTIONS)}, not {reduction!r}")
