"""Scores of saliency maps that are cut at a threshold: precision, recall, F and E.

What a threshold leaves is known from how many pixels of each level are foreground and how many are
background. So a picture is counted once, and all 256 thresholds are arithmetic on 512 whole numbers.
Curves are indexed by their threshold, 0 to 255. (PySODMetrics stores them from 255 down to 0.)
"""

import numpy as np
import numpy.typing as npt

from foveal.metrics.saliency_pair import Counts, Floats, SaliencyPair

LEVELS = 256
BETA_SQUARED = 0.3
"""Weight of recall in F: the field's, below 1 for precision (Achanta et al. 2009)."""


def level_counts(pair: SaliencyPair) -> Counts:
    """Count pixels by truth and level; the level of p is floor(255 p), truncated, not rounded.

    Returns:
        int64 [2, 256]: first background, then foreground.
    """
    sides = ((255 * side).astype(np.int32) for side in (pair.outside, pair.inside))
    return np.stack([np.bincount(levels, minlength=LEVELS) for levels in sides])


def precision_recall(counts: Counts) -> tuple[Floats, Floats]:
    """Return precision and recall of the pixels at or above each threshold.

    Args:
        counts: of :func:`level_counts`, [..., 2, 256].

    Returns:
        Two arrays [..., 256]. Precision is 0 where nothing is predicted, recall where nothing is
        true.
    """
    found, predicted, true, _ = _cut(counts)
    return _ratio(found, predicted), _ratio(found, true)


def f_measure(precision: npt.ArrayLike, recall: npt.ArrayLike) -> Floats:
    r"""Return :math:`F = (1 + \beta^2) P R / (\beta^2 P + R)`, :math:`\beta^2 = 0.3`; 0 where P R is.

    Args:
        precision: P, any shape.
        recall: R, the same shape.
    """
    p, r = np.asarray(precision, np.float64), np.asarray(recall, np.float64)
    return _ratio((1 + BETA_SQUARED) * p * r, BETA_SQUARED * p + r)


def f_curve(counts: Counts) -> Floats:
    """Return F at each threshold, [..., 256], of counts [..., 2, 256]."""
    return f_measure(*precision_recall(counts))


def e_curve(counts: Counts) -> Floats:
    """Return the E-measure at each threshold, [..., 256], of counts [..., 2, 256]."""
    return _e_measure(*_cut(counts))


def adaptive_scores(pair: SaliencyPair) -> tuple[float, float]:
    """Return F and E of the pixels at or above twice the mean of the map (at most 1)."""
    threshold = min(2 * float(pair.prediction.mean()), 1.0)
    found, false = (np.count_nonzero(side >= threshold) for side in (pair.inside, pair.outside))
    cut = (found, found + false, pair.inside.size, pair.truth.size)
    hits, predicted, true, pixels = (np.array(number) for number in cut)
    f = f_measure(_ratio(hits, predicted), _ratio(hits, true))
    return float(f), float(_e_measure(hits, predicted, true, pixels))


def _cut(counts: Counts) -> tuple[Counts, Counts, Counts, Counts]:
    """Return pixels true and predicted, predicted, true, and all: each [..., 256] or [..., 1]."""
    at_or_above = counts[..., ::-1].cumsum(-1)[..., ::-1]  # [..., 2, 256]
    found, predicted = at_or_above[..., 1, :], at_or_above.sum(-2)
    return found, predicted, found[..., :1], predicted[..., :1]


def _ratio(part: npt.NDArray[np.generic], whole: npt.NDArray[np.generic]) -> Floats:
    """Return part / whole, and 0 where the whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole != 0)


def _e_measure(found: Counts, predicted: Counts, true: Counts, pixels: Counts) -> Floats:
    r"""Return the enhanced alignment of binary maps with their truths.

    Both maps, less their means, are a and b; a pixel scores :math:`(2ab / (a^2 + b^2) + 1)^2 / 4`.
    There are four kinds of pixels, and their number is all that matters. The sum is divided by the
    number of pixels less one, so a perfect map of few pixels scores above 1. An empty or full truth
    has no deviation to align with: then the share of right pixels counts.

    Source: Fan et al. 2018, arXiv:1805.10421, equations 3 to 6.
    """
    total = np.zeros(np.broadcast_shapes(found.shape, pixels.shape))
    for chosen in (True, False):
        for wanted in (True, False):
            # Deviations from the mean, times the number of pixels, which cancels out.
            a = (pixels if chosen else 0) - predicted.astype(np.float64)
            b = (pixels if wanted else 0) - true.astype(np.float64)
            number = predicted if chosen else pixels - predicted
            both = found if chosen else true - found
            total += (
                (both if wanted else number - both)
                * (_ratio(2 * a * b, a * a + b * b) + 1) ** 2
                / 4
            )
    total = np.where(true == 0, pixels - predicted, total)
    total = np.where(true == pixels, predicted, total)
    return total / np.maximum(pixels - 1, 1)
