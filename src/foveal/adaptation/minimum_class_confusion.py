"""Minimum class confusion."""

import torch
from torch import Tensor

from foveal.adaptation.entropy import entropy
from foveal.adaptation.items import to_items
from foveal.adaptation.precision import wide, without_autocast


def mcc_loss(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """Return how much classes are confused in the target's predictions.

    With P the tempered probabilities and w = 1 + exp(-H) of mean 1, A = P^T diag(w) P is how often
    two classes go together; each column is divided by its sum, and the loss is what is off the
    diagonal, over C. The weights are constants for the gradient, as in the official code.

    Source: Jin et al. 2020, arXiv:1912.03699.

    Args:
        logits: of the target, [n, C] or [B, C, H, W].
        temperature: T.

    Returns:
        [], in [0, 1], float32 at least; 0 of an empty batch.

    Raises:
        ValueError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    probs = (to_items(wide(logits), "logits") / temperature).softmax(1)
    weight = 1 + (-entropy(probs.detach())).exp()
    weight = weight * (len(weight) / weight.sum().clamp_min(1))
    with without_autocast(probs):
        together = probs.mT @ (weight[:, None] * probs)  # [C, C], symmetric
    totals = together.sum(1)
    confusion = together / totals.where(totals > 0, 1)
    same = torch.eye(len(confusion), dtype=torch.bool, device=confusion.device)
    return confusion.masked_fill(same, 0).sum() / probs.shape[1]
