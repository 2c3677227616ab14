"""The discrepancy of two classifiers."""

from torch import Tensor

from foveal.adaptation.precision import wide


def mcd_discrepancy(p1: Tensor, p2: Tensor) -> Tensor:
    """Return the mean absolute difference of two classifiers' probabilities.

    Source: Saito et al. 2018, arXiv:1712.02560.

    Args:
        p1: [n, C] or [B, C, H, W].
        p2: of the same shape.

    Returns:
        [], the mean over items and classes, float32 at least; 0 of an empty batch.

    Raises:
        ValueError: shapes that differ.
    """
    if p1.shape != p2.shape:
        raise ValueError(
            f"the two predictions must have one shape, not {list(p1.shape)} and {list(p2.shape)}"
        )
    return (wide(p1) - wide(p2)).abs().sum() / max(p1.numel(), 1)
