"""Online label smoothing: labels softened by what the network itself said of each class.

Source: Zhang et al. 2021, Delving Deep into Label Smoothing, arXiv:2011.12562, section 3.
"""

import math
from collections.abc import Callable
from typing import Literal, Self

import torch
from torch import Tensor, nn

from foveal.losses.rows import Rows, check_reduction, to_rows

SMOOTHING = 0.1  # of the start called "smooth"
UNMIXED = 0.999  # the largest probability of a target that counts as one class


class OnlineLabelSmoothing(nn.Module):
    r"""Cross entropy against a mixture of the label and soft labels learned in the last epoch.

    .. math:: loss = \alpha CE(p, y) + (1 - \alpha) \sum_k -S_{yk} \log p_k

    While it trains, the module adds up the softmax of every sample that is predicted right (argmax
    equals the label; of equal logits the first class), by class. :meth:`next_epoch`, called at the
    end of each epoch, makes their means the rows of S for the next one. With one-hot S the loss is
    cross entropy, with uniform S label smoothing of 1 - alpha over all classes.

    Defaults are the paper's. The authors' two programs differ from it and from each other: the
    one for CIFAR has ``init="zeros"``; the one for fine-grained sets has ``hard_weight=1,
    soft_weight=1``, which doubles the gradient, and ``freeze_at=0.88``. By name they are
    ``online_label_smoothing_cifar`` and ``online_label_smoothing_finegrained``.

    Nothing is read back from the device in a step. The state is in buffers, so that a checkpoint
    holds it whole. Of several processes each adds up its own samples and :meth:`next_epoch` sums
    over all of them; see also :meth:`gather`. Logits, which must be finite, are taken from half
    precision to float32, and the buffers stay float32 where a whole model is cast to half.

    Samples of probabilities (mixup, cutmix) have a loss against alpha T + (1 - alpha) T S. By
    default only unmixed ones, whose largest probability is at least 0.999, are collected. Where
    every sample is mixed there is none, and all rows become uniform: ``mixed="weighted"`` collects
    mixed samples under each of their classes, by its share, when the prediction is the class of
    the largest.

    Args:
        num_classes: K.
        alpha: weight of the labels themselves, in [0, 1]; the soft labels have the rest.
        init: S at the start: ``uniform`` 1/K (paper); ``zeros``, so that in the first epoch the
            soft part is 0; ``smooth``, 0.9 I + 0.1/K.
        empty: row of a class none of whose samples was predicted right in an epoch: ``uniform``
            as the authors have it, or ``keep`` the last one.
        freeze_at: a row whose largest entry has come to this is not changed any more (but made
            uniform where ``empty`` says so); None: never.
        momentum: share of the old row in the new one, in [0, 1).
        hard_weight: weight of the label's term in place of alpha.
        soft_weight: weight of the soft labels' term in place of 1 - alpha.
        label_smoothing: ordinary label smoothing of the label's term, in [0, 1].
        mixed: what is collected of mixed samples: ``skip`` or ``weighted``.
        weight: of each class, [K], as in :class:`torch.nn.CrossEntropyLoss`.
        ignore_index: class index of the samples that count for nothing.
        reduction: ``mean``, ``sum`` or ``none``.

    Attributes:
        soft_labels: S, [K, K], row = target class; the paper writes it as columns.
        sum: softmax of this epoch's right samples, added up by class, [K, K].
        count: their number, [K].
        seen: number of batches of this epoch.
        epoch: number of finished epochs.

    Shape:
        logits: [B, K] or [B, K, ...].
        target: class indices int64 [B, ...], or probabilities of the logits' shape.
        output: a scalar; [B, ...] where the reduction is ``none``.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> loss = OnlineLabelSmoothing(num_classes=3)
        >>> for _ in range(2):  # epochs
        ...     value = loss(torch.tensor([[2.0, 1.0, -9.0]]), torch.tensor([0]))
        ...     loss.next_epoch()
        >>> [round(share, 2) for share in loss.soft_labels[0].tolist()]
        [0.73, 0.27, 0.0]
    """

    soft_labels: Tensor
    sum: Tensor
    count: Tensor
    seen: Tensor
    epoch: Tensor
    weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        alpha: float = 0.5,
        *,
        init: Literal["uniform", "zeros", "smooth"] = "uniform",
        empty: Literal["uniform", "keep"] = "uniform",
        freeze_at: float | None = None,
        momentum: float = 0.0,
        hard_weight: float | None = None,
        soft_weight: float | None = None,
        label_smoothing: float = 0.0,
        mixed: Literal["skip", "weighted"] = "skip",
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        for name, value in (("alpha", alpha), ("label_smoothing", label_smoothing)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {value}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), not {momentum}")
        for name, weighting in (("hard_weight", hard_weight), ("soft_weight", soft_weight)):
            if weighting is not None and not 0 <= weighting < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, not {weighting}")
        if None not in (hard_weight, soft_weight) and alpha != 0.5:
            raise ValueError("alpha means nothing beside hard_weight and soft_weight: leave it out")
        if freeze_at is not None and not 0 < freeze_at <= 1:
            raise ValueError(f"freeze_at must lie in (0, 1], not {freeze_at}")
        for name, choice, known in (
            ("init", init, ("uniform", "zeros", "smooth")),
            ("empty", empty, ("uniform", "keep")),
            ("mixed", mixed, ("skip", "weighted")),
        ):
            if choice not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, not {choice!r}")
        check_reduction(reduction)
        self.num_classes = num_classes
        self.hard_weight = alpha if hard_weight is None else hard_weight
        self.soft_weight = 1 - alpha if soft_weight is None else soft_weight
        self.empty, self.freeze_at, self.momentum, self.mixed = empty, freeze_at, momentum, mixed
        self.label_smoothing, self.ignore_index = label_smoothing, ignore_index
        self.reduction = reduction
        start = torch.zeros(num_classes, num_classes)
        if init == "uniform":
            start.fill_(1 / num_classes)
        elif init == "smooth":
            start = (1 - SMOOTHING) * torch.eye(num_classes) + SMOOTHING / num_classes
        if freeze_at is not None and init != "zeros" and freeze_at <= self._largest(init):
            raise ValueError(
                f"freeze_at {freeze_at} would freeze every row at its start, whose largest entry "
                f"is {self._largest(init):g}: give a larger one"
            )
        self.register_buffer("soft_labels", start)
        self.register_buffer("sum", torch.zeros(num_classes, num_classes))
        self.register_buffer("count", torch.zeros(num_classes))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("weight", weight)

    def _largest(self, init: str) -> float:
        """Return the largest entry of a row at the start."""
        uniform = 1 / self.num_classes
        return uniform if init == "uniform" else 1 - SMOOTHING + SMOOTHING * uniform

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the buffers, but never to half precision: sums would come to a stand."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            half = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if half else moved

        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(
        self, logits: Tensor, target: Tensor, statistics_logits: Tensor | None = None
    ) -> Tensor:
        """Return the loss; in training mode also collect.

        Args:
            logits: [B, K, ...].
            target: class indices int64 [B, ...], or probabilities of the logits' shape.
            statistics_logits: collect from these, such as an averaged network's, in place of
                ``logits``; of the same shape.
        """
        if logits.ndim < 2 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"logits must be [B, {self.num_classes}, ...], not {list(logits.shape)}"
            )
        # Half precision would spoil the products with S and the sums.
        with torch.autocast(logits.device.type, enabled=False):
            rows = to_rows(logits, target, self.ignore_index)
            log_p = rows.logits.log_softmax(1)
            loss = self._loss(rows, log_p)
            if self.training:
                with torch.no_grad():
                    if statistics_logits is not None:
                        rows = to_rows(statistics_logits, target, self.ignore_index)
                        log_p = rows.logits.log_softmax(1)
                    self._collect(rows, log_p)
        return loss

    def _loss(self, rows: Rows, log_p: Tensor) -> Tensor:
        """Return cross entropy against one mixture: half the passes of two separate terms."""
        soft_labels = self.soft_labels.to(log_p.dtype)
        hard = self.hard_weight * (1 - self.label_smoothing)
        if rows.indices:
            mixture = soft_labels.index_select(0, rows.target).mul_(self.soft_weight)
            label = torch.full_like(log_p[:, :1], hard)
            mixture.scatter_add_(1, rows.target[:, None], label)
        else:
            mixture = self.soft_weight * (rows.target @ soft_labels)
            mixture += hard * rows.target
        if self.label_smoothing:
            mixture += self.hard_weight * self.label_smoothing / self.num_classes
        if self.weight is not None:
            mixture *= self.weight.to(mixture)
        return rows.reduce(-torch.linalg.vecdot(mixture, log_p), self.weight, self.reduction)

    def _collect(self, rows: Rows, log_p: Tensor) -> None:
        """Add the softmax of the samples that are predicted right to their classes' sums."""
        self.seen += 1
        label = rows.target if rows.indices else rows.target.max(1).indices
        right = rows.logits.max(1).indices == label  # twice as fast as argmax
        if rows.counted is not None:
            right &= rows.counted
        elif self.mixed == "skip":
            right &= rows.target.amax(1) >= UNMIXED
        # One sample that overflowed would spoil its class for all epochs to come.
        right &= log_p.gather(1, label[:, None])[:, 0].isfinite()
        p = log_p.detach().exp().masked_fill_(~right[:, None], 0.0).to(self.sum.dtype)
        share = right.to(p.dtype)
        if not rows.indices:
            shares = rows.target.to(p.dtype) * share[:, None]
            self.sum += shares.T @ p
            self.count += shares.sum(0)
        elif len(p) <= self.num_classes:
            self.sum.index_add_(0, label, p)
            self.count.index_add_(0, label, share)
        else:  # pixels: one by one they would vanish against sums of millions
            self.sum += torch.zeros_like(self.sum).index_add_(0, label, p)
            self.count += torch.zeros_like(self.count).index_add_(0, label, share)

    @torch.no_grad()
    def next_epoch(self) -> None:
        """Make what was collected the soft labels, and begin to collect anew.

        Without a batch since the last call nothing changes. All processes must call it.
        """
        self._over_processes()
        old, present = self.soft_labels, (self.count > 0)[:, None]
        new = self.sum / self.count.clamp_min(torch.finfo(self.count.dtype).tiny)[:, None]
        share = self.momentum * (old.sum(1, keepdim=True) > 0)  # a row of zeros is no memory
        new = share * old + (1 - share) * new
        if self.freeze_at is not None:
            new = torch.where(old.amax(1, keepdim=True) >= self.freeze_at, old, new)
        uniform = torch.full_like(old, 1 / self.num_classes)
        new = torch.where(present, new, uniform if self.empty == "uniform" else old)
        self.soft_labels.copy_(torch.where(self.seen > 0, new, old))
        self.epoch += self.seen > 0
        self.forget()

    @torch.no_grad()
    def gather(self) -> None:
        """Bring what all processes have collected to the first, before it writes a checkpoint.

        The others then hold zeros, so that the sum over processes stays what it was. All processes
        must call it. After a checkpoint was loaded by all of them, all but the first must
        :meth:`forget`.
        """
        if self._over_processes() and torch.distributed.get_rank() != 0:
            self.forget()

    def _over_processes(self) -> bool:
        """Replace what this process has collected by the sum over all; tell if there are others."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return False
        for buffer in (self.sum, self.count, self.seen):
            torch.distributed.all_reduce(buffer)
        return True

    @torch.no_grad()
    def forget(self) -> None:
        """Drop what was collected since the last epoch."""
        for buffer in (self.sum, self.count, self.seen):
            buffer.zero_()

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.num_classes}, hard={self.hard_weight}, soft={self.soft_weight}"
