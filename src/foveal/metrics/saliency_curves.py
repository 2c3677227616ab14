"""Scores of saliency maps that are cut at a threshold: precision, recall, F and E.

What a threshold leaves is known from how many pixels of each level are foreground and how many are
background. So a picture is counted once, and all 256 thresholds are arithmetic on 512 whole
numbers. Curves are indexed by their threshold, 0 to 255. (PySODMetrics stores them from 255 down to
0.)
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from foveal.metrics.saliency_parts import EPSILON, Counts, Floats

BETA_SQUARED = 0.3


class Cut(NamedTuple):
    """What thresholds leave: numbers of pixels, int64, of shapes that broadcast.

    Attributes:
        found: foreground at or above the threshold.
        predicted: all pixels at or above the threshold.
        true: foreground.
        pixels: all pixels.
    """

    found: Counts
    predicted: Counts
    true: Counts
    pixels: Counts


def at_levels(levels: Counts) -> Cut:
    """Cut at each of the 256 levels.

    Args:
        levels: background and foreground pixels of each level, int64 [..., 2, 256].

    Returns:
        Arrays [..., 256] and, of what does not depend on the threshold, [..., 1].
    """
    above = levels[..., ::-1].cumsum(-1)[..., ::-1]
    found, predicted = above[..., 1, :], above.sum(-2)
    return Cut(found, predicted, found[..., :1], predicted[..., :1])


def at_twice_the_mean(bright: Counts, pixels: Counts) -> Cut:
    """Cut at the adaptive threshold.

    Args:
        bright: background and foreground pixels at or above it, int64 [..., 2].
        pixels: all background and foreground pixels, int64 [..., 2].

    Returns:
        Arrays [...].
    """
    return Cut(bright[..., 1], bright.sum(-1), pixels[..., 1], pixels.sum(-1))


def precision_recall(cut: Cut) -> tuple[Floats, Floats]:
    """Return the share of predicted pixels that are true, and of true pixels that are predicted.

    Precision is 0 where nothing is predicted, recall where nothing is true.
    """
    return _ratio(cut.found, cut.predicted), _ratio(cut.found, cut.true)


def f_measure(precision: npt.ArrayLike, recall: npt.ArrayLike) -> Floats:
    r"""Return :math:`F = (1 + \beta^2) P R / (\beta^2 P + R)`; 0 where P R is.

    :math:`\beta^2 = 0.3`, the field's choice, which favours precision.

    Source: Achanta et al. 2009, "Frequency-tuned Salient Region Detection", CVPR.

    Args:
        precision: P, any shape.
        recall: R, the same shape.

    Example:
        >>> f_measure([0.5, 1.0], [1.0, 0.0])
        array([0.565..., 0.        ])
    """
    p, r = np.asarray(precision, np.float64), np.asarray(recall, np.float64)
    return _ratio((1 + BETA_SQUARED) * p * r, BETA_SQUARED * p + r)


def e_measure(cut: Cut) -> Floats:
    r"""Return the enhanced alignment of binary maps with their truths.

    Both maps, less their means, are a and b; a pixel scores :math:`(2ab / (a^2 + b^2) + 1)^2 / 4`.
    There are four kinds of pixels, and their numbers are all that matters. The sum is divided by
    the number of pixels less one, so a perfect map of few pixels scores above 1. An empty or full
    truth has no deviation to align with: there the pixels that are right count.

    Source: Fan et al. 2018, arXiv:1805.10421, section 3.
    """
    found, predicted, true, pixels = cut
    total = np.zeros(np.broadcast_shapes(found.shape, pixels.shape))
    for chosen in (True, False):
        for wanted in (True, False):
            a, b = chosen - predicted / pixels, wanted - true / pixels
            number = predicted if chosen else pixels - predicted
            both = found if chosen else true - found
            aligned = (2 * a * b / (a * a + b * b + EPSILON) + 1) ** 2 / 4
            total += (both if wanted else number - both) * aligned
    total = np.where(true == 0, pixels - predicted, total)
    total = np.where(true == pixels, predicted, total)
    return total / np.maximum(pixels - 1, 1)


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    """Return part / whole, and 0 where the whole is 0."""
    shape = np.broadcast_shapes(np.shape(part), np.shape(whole))
    ratio: Floats = np.divide(part, whole, out=np.zeros(shape), where=np.not_equal(whole, 0))
    return ratio
