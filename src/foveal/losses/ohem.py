"""Online hard example mining: cross entropy of the pixels that the network finds hard.

Source: the loss of SPNet's official code (arXiv:2003.13328), which has it from earlier segmentation
code; there in NumPy on the CPU.
"""

import dataclasses

import torch
from torch import Tensor, nn

from foveal.losses.rows import check_reduction, to_rows


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Return the cross entropy of the samples whose true class has a probability p <= t.

    t is ``threshold``, or the probability of the ``min_kept``-th hardest sample of the batch where
    that is larger; with fewer samples than ``min_kept`` all are kept. Nothing is read back from the
    device.

    Args:
        logits: [B, K, ...].
        target: class indices int64 [B, ...], or probabilities of the logits' shape (p is then the
            mean probability under them).
        threshold: in [0, 1].
        min_kept: samples that are kept at least, of those that are not ignored.
        weight: of each class, [K]; it has no part in the choice.
        ignore_index: class index of the samples that count for nothing.
        reduction: ``mean`` over the kept samples (0 without any), ``sum``, or ``none`` (0 where
            not kept), as in :class:`torch.nn.CrossEntropyLoss`.
    """
    rows = to_rows(logits, target, ignore_index)
    log_p = rows.logits.log_softmax(1)
    losses = rows.sum_over_target(-log_p if weight is None else -log_p * weight.to(log_p))
    with torch.no_grad():
        p = rows.sum_over_target(log_p.exp())
        if rows.counted is not None:
            p = p.masked_fill(~rows.counted, torch.inf)  # the least hard of all
        limit = p.new_full((), threshold)
        if min_kept and len(p):
            limit = limit.maximum(p.kthvalue(min(min_kept, len(p))).values)
        kept = p <= limit
        kept |= p.isnan()  # so that a network that has failed is not taken for one without faults
        if rows.counted is not None:
            kept &= rows.counted
    return dataclasses.replace(rows, counted=kept).reduce(losses, weight, reduction)


class OhemCrossEntropy(nn.Module):
    """Cross entropy of the hardest samples of a batch; see :func:`ohem_cross_entropy`.

    The defaults are those of the official code. The choice is made among the samples of one
    process, so ``min_kept`` belongs to its batch.

    Args:
        threshold: samples whose true class has at most this probability are kept, in [0, 1].
        min_kept: samples that are kept at least; 0 keeps those under the threshold alone.
        weight: of each class, [K].
        ignore_index: class index of the samples that count for nothing.
        reduction: ``mean``, ``sum`` or ``none``.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [0.5, 0.0], [0.0, 2.0]])
        >>> OhemCrossEntropy(min_kept=1, reduction="none")(logits, torch.tensor([0, 0, 0]))
        tensor([0.0000, 0.4741, 2.1269])
    """

    weight: Tensor | None

    def __init__(
        self,
        threshold: float = 0.7,
        min_kept: int = 100_000,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], not {threshold}")
        if not min_kept >= 0:
            raise ValueError(f"min_kept must be at least 0, not {min_kept}")
        check_reduction(reduction)
        self.threshold, self.min_kept = threshold, min_kept
        self.ignore_index, self.reduction = ignore_index, reduction
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits [B, K, ...]."""
        return ohem_cross_entropy(
            logits,
            target,
            threshold=self.threshold,
            min_kept=self.min_kept,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"threshold={self.threshold}, min_kept={self.min_kept}"
