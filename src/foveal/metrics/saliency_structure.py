"""The S-measure: does a saliency map have the structure of its truth?"""

import numpy as np

from foveal.metrics.saliency_pair import SaliencyPair
from foveal.metrics.saliency_parts import EPSILON, Floats, blocks_of


def s_measure(pair: SaliencyPair) -> float:
    r"""Return :math:`\frac{1}{2} S_{object} + \frac{1}{2} S_{region}`, at least 0.

    The object part asks whether foreground and background are bright and even, the region part
    compares the four blocks around the centre of the foreground. Of an empty truth the score is 1
    less the mean of the map, of a full one the mean.

    Source: Fan et al. 2017, arXiv:1708.00786, section 3.

    Returns:
        A number in [0, 1].
    """
    background, foreground = pair.parts.pixels.sum((0, 1)).tolist()
    if not background or not foreground:
        mean = float(pair.prediction.mean())
        return mean if foreground else 1 - mean
    return max(0.0, 0.5 * _objects(pair) + 0.5 * _regions(pair))


def _objects(pair: SaliencyPair) -> float:
    """Return 2 m / (m² + 1 + σ) of each side's values, which should all be 1, weighted by area."""
    n, sums, squares = pair.parts[:3]
    pixels = n.sum((0, 1))
    means = sums.sum((0, 1)) / pixels
    apart = sums / np.maximum(n, 1) - means
    deviations = np.sqrt((squares + n * apart**2).sum((0, 1)) / np.maximum(pixels - 1, 1))
    means[0] = 1 - means[0]
    scores = 2 * means / (means * means + 1 + deviations + EPSILON)
    return float((pixels * scores).sum() / pixels.sum())


def _regions(pair: SaliencyPair) -> float:
    """Return the blocks' structural similarity, weighted by area.

    It is 4 x̄ ȳ σxy / ((x̄² + ȳ²)(σx + σy)), without constants. Where the numerator is 0, it is 1 if
    the denominator is 0 too, else 0.
    """
    n, sums, squares = pair.parts[:3]
    pixels = n.sum(2)
    mean, true_mean = sums.sum(2) / np.maximum(pixels, 1), n[..., 1] / np.maximum(pixels, 1)
    means = sums / np.maximum(n, 1)
    contrast = means[..., 1] - means[..., 0]
    true_variance = pixels * true_mean * (1 - true_mean) / np.maximum(pixels - 1, 1)
    covariance = true_variance * contrast  # as the truth is binary
    variance = squares.sum(2) / np.maximum(pixels - 1, 1) + covariance * contrast
    above = 4 * mean * true_mean * covariance
    similarity = above / ((mean**2 + true_mean**2) * (variance + true_variance) + EPSILON)
    for i, j in np.argwhere((true_variance == 0) & (pixels > 0)).tolist():
        rows, columns = blocks_of(pair.truth)[i, j]
        similarity[i, j] = _is_even(pair.prediction[rows, columns])
    return float((pixels * similarity).sum() / pixels.sum())


def _is_even(block: Floats) -> bool:
    """Return whether nothing differs from the mean.

    Of a constant block the rounding of its mean decides, as in PySODMetrics.
    """
    return not (block - block.mean()).any()
