"""The weighted F-measure: mistakes count by where they are."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d, distance_transform_edt

from foveal.metrics.saliency_pair import SaliencyPair
from foveal.metrics.saliency_parts import Floats, Mask

REACH = 3  # of the window of 7 x 7 pixels
SIGMA = 5.0
STRIP = 32  # rows at a time, which stay in the cache
FAR = 265  # pixels away a false alarm counts twice, to the last digit of float64

# 2^(-d/5) of squared distances
CLOSENESS: Floats = np.exp2(-np.sqrt(np.arange(FAR * FAR + 1)) / 5)


def weighted_f(pair: SaliencyPair) -> float:
    r"""Return the weighted F-measure, :math:`\beta^2 = 1`.

    An error in the foreground is forgiven as far as the errors around it, smoothed by a Gaussian,
    are less; a background pixel there has the error of the nearest foreground pixel. An error in
    the background counts :math:`2 - 2^{-d/5}` times, d pixels from the foreground. An empty truth
    scores 0.

    Where several foreground pixels are equally near, the choice is that of SciPy's
    ``distance_transform_edt``, as in PySODMetrics; another choice changes the fourth digit.

    Source: Margolin et al. 2014, "How to Evaluate Foreground Maps?", CVPR.

    Returns:
        A number in [0, 1].
    """
    true = int(pair.parts.pixels[..., 1].sum())
    if not true:
        return 0.0
    # Nothing else has a part in it, and less is left for the transform.
    window = _rectangle(pair.truth | (pair.prediction > 0), REACH)
    p, g = pair.prediction[window], pair.truth[window]
    nearest = _nearest(g)

    around = _rectangle(g, REACH)
    row, column = nearest[:, *around]
    error = 1 - p.take(row * np.int32(p.shape[1]) + column, mode="clip")
    missed = float(np.minimum(error, _gaussian(error))[g[around]].sum())

    # The sum over the background of p (2 - closeness); closeness is 1 in the foreground.
    background, foreground = pair.parts.sums.sum((0, 1)).tolist()
    false = 2 * background + foreground
    for rows in (slice(top, top + STRIP) for top in range(0, len(p), STRIP)):
        close = CLOSENESS.take(_squared_distance(nearest[:, rows], rows.start), mode="clip")
        close *= p[rows]
        false -= float(close.sum())

    recall = 1 - missed / true
    precision = (true - missed) / (true - missed + false) if true > missed else 0.0
    return 2 * recall * precision / (recall + precision) if precision else 0.0


def _nearest(truth: Mask) -> npt.NDArray[np.int32]:
    """Return the indices of each pixel's nearest foreground pixel, [H, W] -> [2, H, W].

    Of an odd width: columns of rows whose length is a power of two share few places of the cache,
    which makes the transform three times as slow.
    """
    height, width = truth.shape
    background = np.ones((height, width | 1), bool)
    np.logical_not(truth, out=background[:, :width])
    nearest: npt.NDArray[np.int32] = distance_transform_edt(
        background, return_distances=False, return_indices=True
    )
    return nearest[:, :, :width]


def _rectangle(mask: Mask, margin: int) -> tuple[slice, slice]:
    """Return the smallest rectangle around what is marked, with a margin within the picture."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return (
        slice(max(rows[0] - margin, 0), rows[-1] + 1 + margin),
        slice(max(columns[0] - margin, 0), columns[-1] + 1 + margin),
    )


def _gaussian(values: Floats) -> Floats:
    """Smooth by a Gaussian that is cut to its window and has sum 1; beyond the border is 0."""
    weights = np.exp(-(np.arange(-REACH, REACH + 1) ** 2) / (2 * SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):  # a product of two
        values = correlate1d(values, weights, axis, mode="constant")
    return values


def _squared_distance(nearest: npt.NDArray[np.int32], top: int) -> npt.NDArray[np.int32]:
    """Return that of pixels from those at their indices, [2, H, W] -> [H, W]; top: first row."""
    _, height, width = nearest.shape
    down: npt.NDArray[np.int32] = nearest[0] - np.arange(top, top + height, dtype=np.int32)[:, None]
    right = nearest[1] - np.arange(width, dtype=np.int32)
    down *= down
    right *= right
    down += right
    return down
