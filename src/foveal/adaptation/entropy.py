"""Entropy of predictions, and weights of items from it."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from foveal.adaptation.precision import wide
from foveal.names import unknown

Normalization = Literal["domain", "joint"]
_EPS = 1e-5  # inside the logarithm, as in the official code of NOUN and of CDAN


def entropy(probs: Tensor) -> Tensor:
    """Return -sum p log(p + 1e-5) of each prediction, in nats.

    Args:
        probs: [n, C] or [B, C, H, W], in [0, 1].

    Returns:
        [n] or [B, H, W], float32 at least.
    """
    probs = wide(probs)
    return -(probs * (probs + _EPS).log()).sum(1)


def entropy_weights(
    probs: Tensor,
    n_source: int,
    normalize: Normalization = "domain",
    across: Callable[[Tensor], Tensor] = Tensor.detach,
) -> Tensor:
    """Return weights 1 + exp(-H) of items, so that sure predictions count up to twice as much.

    Source: Long et al. 2018 (CDAN+E), arXiv:1705.10667; with the two normalisations that are in
    use. The normalisers are constants in the backward pass, the weights are not.

    Args:
        probs: of both domains, source first, [n, C] or [B, C, H, W].
        n_source: how many of the first dimension are of the source.
        normalize: ``domain``: the weights of each domain sum to 1/2, for a sum of losses (official
            code of CDAN and NOUN); ``joint``: all have mean 1, for a mean of losses (tllib).
        across: what makes the normalisers those of all processes; alone, they are as they are.

    Returns:
        [n] or [B, H, W], float32 at least.

    Raises:
        ValueError: ``n_source`` is not in the batch, or an unknown normalisation.
    """
    check_normalization(normalize)
    if not 0 <= n_source <= len(probs):
        raise ValueError(f"n_source must lie in [0, {len(probs)}], not {n_source}")
    weight = 1 + (-entropy(probs)).exp()
    if normalize == "joint":
        count = across(weight.new_full((), weight.numel()))
        return weight * _over(count, across(weight.sum()))
    parts = weight[:n_source], weight[n_source:]
    half = weight.new_full((), 0.5)
    return torch.cat([part * _over(half, across(part.sum())) for part in parts])


def check_normalization(normalize: str) -> None:
    """Raise ValueError for a normalisation that there is not."""
    known = get_args(Normalization)
    if normalize not in known:
        raise ValueError(unknown("normalisation of entropy weights", normalize, known))


def _over(part: Tensor, total: Tensor) -> Tensor:
    """Return a constant over the sum of weights, which is 0 only where there is no item."""
    return part / total.where(total > 0, 1)


def class_histogram_entropy(probs: Tensor) -> Tensor:
    """Return the entropy of how often each class is predicted, in nats.

    It is log C where all classes are predicted equally often, and falls where predictions gather in
    a few, as they rightly do under label shift.

    Args:
        probs: [n, C] or [B, C, H, W]; logits will do.

    Returns:
        [], float32; 0 of an empty batch.
    """
    classes = torch.arange(probs.shape[1], device=probs.device)
    counts = (probs.argmax(1).reshape(-1, 1) == classes).sum(0).float()
    shares = counts / counts.sum().clamp_min(1)
    return -torch.xlogy(shares, shares).sum()
