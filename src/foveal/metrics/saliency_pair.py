"""One picture's saliency map and its truth, checked and on one scale, as all scores take them.

In NumPy and float64: maps come from files or leave the GPU once, SciPy's distance transform works
on arrays, and a device without float64 could not give the reference's numbers.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

from foveal.metrics.probability_maps import as_array, probabilities
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
            >>> pair = SaliencyPair.of([[0.2, 0.6]], [[0.0, 1.0]])
            >>> pair.prediction, pair.truth
            (array([[0., 1.]]), array([[False,  True]]))
        """
        given, wanted = as_array(prediction), as_array(truth)
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
        values = probabilities(given)
        low, high = values.min(), values.max()
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
    values = as_array(truth)
    if values.dtype == np.bool_:
        return values
    if values.dtype == np.uint8:
        if values.max() == 1:
            raise ValueError("truth is uint8 with largest value 1: 0 and 1 belong in bool or float")
        foreground: Mask = values > TRUE_ABOVE
        return foreground
    if values.dtype.kind != "f":
        raise TypeError(f"the truth must be uint8, bool or float, not {values.dtype}")
    if (values == -1).any():
        raise ValueError("truth has pixels without a label (-1): cut the padding off first")
    # Between two levels: rounding decides nothing.
    return probabilities(values, "truth") > (TRUE_ABOVE + 0.5) / 255
