"""Maps of probabilities, as scores take them: arrays or tensors of several types, on one scale."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Floats = NDArray[np.float64]


def probabilities(values: ArrayLike | Tensor, what: str = "prediction") -> Floats:
    """Return a map in [0, 1], float64 of its shape, a copy.

    Args:
        values: any float in [0, 1], uint8 0..255, uint16 0..65535 or bool; at least one.
        what: its name in the errors.

    Raises:
        TypeError: another type.
        ValueError: values out of range or not finite.

    Example:
        >>> probabilities(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
        array([[0. , 0.2, 1. ]])
    """
    array = as_array(values)
    if array.dtype in (np.uint8, np.uint16):
        return array / float(np.iinfo(array.dtype).max)
    if array.dtype.kind not in "fb":
        raise TypeError(f"the {what} must be uint8, uint16, bool or float, not {array.dtype}")
    p = array.astype(np.float64)
    low, high = p.min(), p.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"the {what} has values that are not finite")
    if low < 0 or high > 1:
        raise ValueError(
            f"the {what} lies in [{low:g}, {high:g}], not in [0, 1]; probabilities are wanted, "
            "not logits, and uint8 for 0..255"
        )
    return p


def as_array(values: ArrayLike | Tensor) -> NDArray[Any]:
    """Return an array of the values, which may share their memory."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        values = (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    return np.asarray(values)
