"""The S-measure: does a saliency map have the structure of its truth?"""

import numpy as np
import numpy.typing as npt

from foveal.metrics.saliency_pair import Floats, Mask, SaliencyPair


def s_measure(pair: SaliencyPair) -> float:
    r"""Return :math:`\frac{1}{2} S_{object} + \frac{1}{2} S_{region}`, at least 0.

    The object part asks whether foreground and background are bright and even, the region part
    compares the four blocks around the centre of the foreground. Of an empty truth the score is 1
    less the mean of the map, of a full one the mean.

    Source: Fan et al. 2017, arXiv:1708.00786, section 3.

    Returns:
        A number in [0, 1].
    """
    share = pair.inside.size / pair.truth.size
    if share in (0, 1):
        mean = float(pair.prediction.mean())
        return mean if share else 1 - mean
    objects = share * _evenness(pair.inside) + (1 - share) * _evenness(1 - pair.outside)
    return max(0.0, 0.5 * objects + 0.5 * _regions(pair))


def _evenness(values: Floats) -> float:
    """Score of one side of the truth: 2 m / (m² + 1 + σ) of values that should all be 1."""
    mean = float(values.mean())
    n = max(values.size - 1, 1)
    deviation = (_sum_of_squares(values - mean) / n) ** 0.5
    return 2 * mean / (mean * mean + 1 + deviation)


def _regions(pair: SaliencyPair) -> float:
    p, g = pair.prediction, pair.truth
    height, width = g.shape
    y, x = (_centre(np.count_nonzero(g, axis)) for axis in (1, 0))
    blocks = [
        (slice(top, bottom), slice(left, right))
        for top, bottom in ((0, y), (y, height))
        for left, right in ((0, x), (x, width))
        if top < bottom and left < right
    ]
    return sum(p[block].size / p.size * _similarity(p[block], g[block]) for block in blocks)


def _centre(marginal: npt.NDArray[np.intp]) -> int:
    """Return where a side is divided: the mean place, rounded half to even, plus one.

    The one is MATLAB's, in which the official code is written: its indices start there.
    """
    return int(np.rint((marginal * np.arange(marginal.size)).sum() / marginal.sum())) + 1


def _similarity(block: Floats, truth: Mask) -> float:
    """Structural similarity 4 x̄ ȳ σxy / ((x̄² + ȳ²)(σx + σy)) of a block, without constants.

    Where the numerator is 0: 1 if the denominator is 0 too, else 0. (So a block whose truth is
    constant scores 1 if the map is constant there, but for rounding, here as in PySODMetrics.)
    """
    n, true = block.size, np.count_nonzero(truth)
    mean, true_mean = float(block.mean()), true / n
    deviation = block - mean
    mixed = 0 < true < n
    # Each times n - 1, which cancels out. Of a binary map, the products with its deviations add up
    # to the sum of the other's over its foreground.
    covariance = float(deviation[truth].sum()) if mixed else 0.0
    variances = _sum_of_squares(deviation) + true * (n - true) / n
    above = 4 * mean * true_mean * covariance
    below = (mean * mean + true_mean * true_mean) * variances
    if above:
        return above / below
    return 0.0 if below else 1.0


def _sum_of_squares(values: Floats) -> float:
    """Return the sum of squares of an array that is then no longer needed.

    NumPy's own sum, not a product of vectors: BLAS's result depends on the number of threads.
    """
    return float(np.square(values, out=values).sum())
