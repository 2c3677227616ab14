"""One picture's saliency map and its truth, checked and on one scale, as all scores take them.

In NumPy and float64: maps come from files or leave the GPU once, SciPy's distance transform works
on arrays, and a device without float64 could not give the reference's numbers.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from foveal.metrics.saliency_parts import Floats, Mask, Parts, parts_of

TRUE_ABOVE = 128
"""Truth of 0..255 is foreground above this; other tools take it from here on, or above 127.5."""


@dataclass(frozen=True, eq=False)
class SaliencyPair:
    """A saliency map and its truth.

    Attributes:
        prediction: float64 [H, W] in [0, 1].
        truth: foreground, bool [H, W].
        min_max: whether the map was stretched to span [0, 1]. A constant map stays as it is.
    """

    prediction: Floats
    truth: Mask
    min_max: bool

    @classmethod
    def of(
        cls,
        prediction: npt.ArrayLike | Tensor,
        truth: npt.ArrayLike | Tensor,
        *,
        min_max: bool = True,
    ) -> "SaliencyPair":
        """Check a map and its truth and bring them to one scale.

        Args:
            prediction: probability of being salient, [H, W], array or tensor: any float in [0, 1],
                uint8 0..255, uint16 0..65535 or bool.
            truth: the same size: bool, uint8 0..255 (foreground above 128) or any float in [0, 1]
                (likewise).
            min_max: stretch the map to span [0, 1], as PySODMetrics does with every map. Without
                it the values count as they are.

        Raises:
            TypeError: another type.
            ValueError: not [H, W], no pixels, sizes that differ, values out of range or not finite,
                pixels without a label (-1).

        Example:
            >>> pair = SaliencyPair.of(torch.tensor([[0.2, 0.6]]), torch.tensor([[0.0, 1.0]]))
            >>> pair.prediction, pair.truth
            (array([[0., 1.]]), array([[False,  True]]))
        """
        given, wanted = _array(prediction), _array(truth)
        if given.shape != wanted.shape:
            raise ValueError(
                "prediction and truth must have the same size, not "
                f"{list(given.shape)} and {list(wanted.shape)}; resize the prediction to the truth"
            )
        if given.ndim != 2 or not given.size:
            raise ValueError(
                f"a saliency map is [H, W] with at least one pixel, not {list(given.shape)}"
            )
        foreground = foreground_of(wanted)
        values = _fractions(given, "prediction", "uint8, uint16, bool or float")
        low, high = _range(values, "prediction")
        if min_max and low != high and (low, high) != (0, 1):
            values -= low
            values /= high - low
        return cls(values, foreground, min_max)

    @cached_property
    def parts(self) -> Parts:
        """What the parts of the picture hold; bright is twice the mean of the map, at most 1."""
        threshold = min(2 * float(self.prediction.mean()), 1.0)
        return parts_of(self.prediction, self.truth, threshold)


def foreground_of(truth: npt.ArrayLike | Tensor) -> Mask:
    """Return the foreground of a truth, bool of its shape.

    Args:
        truth: bool, uint8 0..255 (foreground above 128) or any float in [0, 1] (likewise).

    Raises:
        TypeError: another type.
        ValueError: values out of range or not finite, uint8 of 0 and 1, pixels without a label
            (-1).
    """
    values = _array(truth)
    if values.dtype == np.bool_:
        return values
    if values.dtype == np.uint8:
        if values.max() == 1:
            raise ValueError("truth is uint8 with largest value 1: 0 and 1 belong in bool or float")
        foreground: Mask = values > TRUE_ABOVE
        return foreground
    if values.dtype.kind == "f" and (values == -1).any():
        raise ValueError("truth has pixels without a label (-1): cut the padding off first")
    fractions = _fractions(values, "truth", "uint8, bool or float")
    _range(fractions, "truth")
    foreground = (
        fractions > (TRUE_ABOVE + 0.5) / 255
    )  # between two levels: rounding decides nothing
    return foreground


def _array(values: npt.ArrayLike | Tensor) -> npt.NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        return (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    return np.asarray(values)


def _fractions(values: npt.NDArray[Any], what: str, allowed: str) -> Floats:
    """Return values in [0, 1] as float64, a copy."""
    if values.dtype.kind in "fb":
        return values.astype(np.float64)
    if values.dtype in (np.uint8, np.uint16):
        fractions: Floats = values / float(np.iinfo(values.dtype).max)
        return fractions
    raise TypeError(f"{what} must be {allowed}, not {values.dtype}")


def _range(fractions: Floats, what: str) -> tuple[float, float]:
    low, high = float(fractions.min()), float(fractions.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{what} has values that are not finite")
    if low < 0 or high > 1:
        raise ValueError(
            f"{what} lies in [{low:g}, {high:g}], not in [0, 1]; "
            "probabilities are wanted, not logits, and uint8 for 0..255"
        )
    return low, high
