"""Weights that make rare classes count as much as frequent ones."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def balanced_weights(counts: NDArray[np.int64]) -> Tensor:
    """Return weights inverse to frequency: 1 for a class of average size, 0 for one without any.

    Args:
        counts: number of pictures or pixels of each class, [K].

    Returns:
        float32 [K].

    Example:
        >>> balanced_weights(np.array([6, 2, 4, 0]))
        tensor([0.5000, 1.5000, 0.7500, 0.0000])
    """
    weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return torch.as_tensor(np.where(counts > 0, weights, 0)).float()
