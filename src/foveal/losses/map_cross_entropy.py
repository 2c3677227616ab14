"""Losses of maps with one number for each pixel: saliency, edges, skeletons.

A target is in [0, 1]; pixels below 0 have no label and count for nothing, so that pictures of
different sizes, and of sets with different labels, share a batch.

Sources: Xie and Tu 2015, arXiv:1504.06375, for the balance; the official code of PoolNet
(arXiv:1904.09569), the sibling of DFI, for its constants and sums.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.names import unknown

REDUCTIONS = ("mean", "sum_per_image")


def map_cross_entropy(
    logits: Tensor, target: Tensor, *, reduction: str = "mean", pictures: Tensor | None = None
) -> Tensor:
    """Return the binary cross entropy of a map with a label that may be soft.

    Args:
        logits: [B, 1, H, W].
        target: [B, 1, H, W], in [0, 1]; below 0 where there is no label.
        reduction: ``mean``, over a picture's labelled pixels, or ``sum_per_image``, their sum, as
            the authors have it: large pictures then weigh more, and rates are other ones. Either
            is averaged over the pictures that have a label; it is 0 where none has.
        pictures: by how many pictures their sum is divided, in place of the number of those that
            have a label; see :func:`labelled_pictures`.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that differ, or an unknown reduction.
    """
    logits, target = _checked(logits, target, reduction)
    labelled = target >= 0
    losses = F.binary_cross_entropy_with_logits(logits, target.clamp_min(0), reduction="none")
    return _reduced(losses, labelled, labelled, reduction, pictures)


def balanced_map_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.5,
    negative_factor: float = 1.1,
    reduction: str = "mean",
    pictures: Tensor | None = None,
) -> Tensor:
    r"""Return the cross entropy in which the few positive pixels weigh as much as the others.

    Pixels above ``threshold`` are positive, those of exactly 0 negative; what lies between, marked
    by few annotators, counts for nothing. With :math:`n_+` and :math:`n_-` of them in a picture,
    positives weigh :math:`n_- / (n_+ + n_-)` and negatives ``negative_factor`` times
    :math:`n_+ / (n_+ + n_-)`: without a positive pixel a picture's loss is 0.

    Args:
        logits: [B, 1, H, W].
        target: [B, 1, H, W], in [0, 1]; below 0 where there is no label.
        threshold: in [0, 1).
        negative_factor: 1.1 in the authors' code.
        reduction: as in :func:`map_cross_entropy`.
        pictures: likewise.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that differ, or an unknown reduction.
    """
    logits, target = _checked(logits, target, reduction)
    positive, negative = target > threshold, target == 0
    counted = positive | negative
    dims = (1, 2, 3)
    positives = positive.sum(dims, keepdim=True).to(logits)
    negatives = negative.sum(dims, keepdim=True).to(logits)
    total = (positives + negatives).clamp_min(1)
    weight = torch.where(positive, negatives / total, negative_factor * positives / total)
    losses = F.binary_cross_entropy_with_logits(logits, positive.to(logits), reduction="none")
    return _reduced(losses * weight, counted, target >= 0, reduction, pictures)


def labelled_pictures(target: Tensor) -> Tensor:
    """Return the number of pictures with a label, in several processes the mean of theirs.

    Divided by that, and averaged over processes as DDP does with gradients, a loss is that of all
    pictures in one process, however the labelled ones are dealt.

    Args:
        target: [B, 1, H, W], below 0 where there is no label.

    Returns:
        A scalar.
    """
    count = (target >= 0).flatten(1).any(1).sum().double()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count /= torch.distributed.get_world_size()
    return count


def _checked(logits: Tensor, target: Tensor, reduction: str) -> tuple[Tensor, Tensor]:
    if logits.shape != target.shape or logits.ndim != 4:
        raise ValueError(
            f"logits and targets must both be [B, 1, H, W], not {list(logits.shape)} and "
            f"{list(target.shape)}"
        )
    if reduction not in REDUCTIONS:
        raise ValueError(unknown("reduction", reduction, REDUCTIONS))
    if logits.dtype != torch.float64:
        logits = logits.float()  # sums over whole pictures overflow in half precision
    return logits, target.to(logits)


def _reduced(
    losses: Tensor, counted: Tensor, labelled: Tensor, reduction: str, pictures: Tensor | None
) -> Tensor:
    """Return the mean over pictures with a label of their pixels' sum or mean."""
    sums = losses.where(counted, 0.0).sum((1, 2, 3))
    if reduction == "mean":
        sums = sums / counted.sum((1, 2, 3)).clamp_min(1)
    if pictures is None:
        pictures = labelled.flatten(1).any(1).sum().clamp_min(1)
    # Where no process has a labelled picture, the sum is 0.
    return sums.sum() / torch.where(pictures > 0, pictures, 1).to(sums)
