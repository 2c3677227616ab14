"""What the parts of a picture hold of its saliency map.

Four blocks meet at the centre of the foreground, and each has background and foreground. Every
score but the weighted F is arithmetic on a few numbers of these eight parts.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Block = tuple[slice, slice]

LEVELS = 256
EPSILON = 2.0**-52
"""What the official code of S and E adds to denominators: seen where these are tiny."""


class Parts(NamedTuple):
    """Numbers of the parts; the axis of sides is background, foreground.

    Attributes:
        pixels: of each row and column of blocks and each side, int64 [2, 2, 2].
        sums: of the map's values there, float64 [2, 2, 2].
        squares: of their deviations from the part's mean, float64 [2, 2, 2].
        bright: pixels at or above the threshold, int64 [2].
        levels: pixels of each level, int64 [2, 256]. The level of p is floor(255 p), truncated and
            not rounded.
    """

    pixels: Counts
    sums: Floats
    squares: Floats
    bright: Counts
    levels: Counts


def blocks_of(truth: Mask) -> dict[tuple[int, int], Block]:
    """Return the four blocks around the centre of the foreground, by row and column of blocks.

    The first ones end one after the mean row and column, which are rounded half to even. The one is
    MATLAB's, in which the official S-measure is written: its indices start there. Blocks may be
    empty.
    """
    cuts = []
    for axis in (1, 0):
        marginal = np.count_nonzero(truth, axis)
        total = (marginal * np.arange(marginal.size)).sum()
        cut = int(np.rint(total / max(marginal.sum(), 1))) + 1
        cuts.append((slice(0, cut), slice(cut, marginal.size)))
    rows, columns = cuts
    return {(i, j): (rows[i], columns[j]) for i in (0, 1) for j in (0, 1)}


def parts_of(prediction: Floats, truth: Mask, threshold: float) -> Parts:
    """Return the numbers of a map.

    Args:
        prediction: float64 [H, W] in [0, 1].
        truth: bool [H, W].
        threshold: of what is bright.
    """
    parts = Parts(
        np.zeros((2, 2, 2), np.int64),
        np.zeros((2, 2, 2)),
        np.zeros((2, 2, 2)),
        np.zeros(2, np.int64),
        np.zeros((2, LEVELS), np.int64),
    )
    for place, block in blocks_of(truth).items():
        for side, mask in enumerate((~truth[block], truth[block])):
            values, part = prediction[block][mask], (*place, side)
            if not values.size:
                continue
            parts.pixels[part] = values.size
            parts.sums[part] = total = values.sum()
            parts.bright[side] += np.count_nonzero(values >= threshold)
            # NumPy's own sum: BLAS's, of a product of vectors, depends on its threads.
            deviations = values - total / values.size
            parts.squares[part] = np.square(deviations, out=deviations).sum()
            values *= LEVELS - 1
            parts.levels[side] += np.bincount(values.astype(np.int32), minlength=LEVELS)
    return parts
