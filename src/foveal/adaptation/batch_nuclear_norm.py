"""Batch nuclear-norm maximisation."""

import torch
from torch import Tensor

from foveal.adaptation.items import to_items
from foveal.adaptation.precision import wide


def bnm_loss(probs: Tensor, fast: bool = False) -> Tensor:
    """Return minus the mean singular value of the target's predictions.

    They are large where predictions are sure and of many classes.

    Source: Cui et al. 2020, arXiv:2003.12237; the fast form is Cui et al. 2021, arXiv:2107.06154.

    Args:
        probs: of the target, [n, C] or [B, C, H, W], in [0, 1].
        fast: take the norms of the largest columns in place of the singular values.

    Returns:
        [], the mean over min(n, C) values, float32 at least; 0 of an empty batch.
    """
    items = to_items(wide(probs), "probabilities")
    count = min(items.shape)
    if count == 0:
        return items.sum()
    if fast:
        values: Tensor = torch.linalg.vector_norm(items, dim=0).topk(count).values
    else:
        values = torch.linalg.svdvals(items)
    return -values.mean()
