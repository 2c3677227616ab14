"""How well a network finds the objects that stand out.

The scores are those of PySODMetrics, number for number, and of the classic evaluation of maximal F.
What they measure is said where each is computed: ``saliency_curves`` (F, E, precision and recall),
``saliency_structure`` (S) and ``saliency_weighted`` (weighted F).
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from foveal.metrics.saliency_curves import (
    at_levels,
    at_twice_the_mean,
    e_measure,
    f_measure,
    precision_recall,
)
from foveal.metrics.saliency_pair import SaliencyPair, foreground_of
from foveal.metrics.saliency_parts import LEVELS, Counts, Floats
from foveal.metrics.saliency_structure import s_measure
from foveal.metrics.saliency_weighted import weighted_f


class SaliencyCurves(NamedTuple):
    """Scores at the thresholds 0 to 255, float64 [..., 256].

    Attributes:
        precision: share of predicted pixels that are true; 0 where nothing is predicted.
        recall: share of true pixels that are predicted; 0 where nothing is true.
        f: F of each picture's precision and recall.
        e: E-measure.
    """

    precision: Floats
    recall: Floats
    f: Floats
    e: Floats


class PictureSaliency(NamedTuple):
    """Scores of one picture.

    Attributes:
        mae: mean absolute error, in [0, 1].
        s_measure: in [0, 1].
        weighted_f: in [0, 1]; 0 for an empty truth.
        adaptive_f: F of the pixels at or above twice the mean of the map.
        adaptive_e: their E-measure.
        curves: F, E, precision and recall at each threshold, [256].
        min_max: whether the map was stretched to span [0, 1].
    """

    mae: float
    s_measure: float
    weighted_f: float
    adaptive_f: float
    adaptive_e: float
    curves: SaliencyCurves
    min_max: bool


def mean_absolute_error(pair: SaliencyPair) -> float:
    """Return the mean of what each pixel's value is away from its truth, in [0, 1]."""
    background, foreground = pair.parts.sums.sum((0, 1)).tolist()
    true = int(pair.parts.pixels[..., 1].sum())
    return float((background + (true - foreground)) / pair.truth.size)


def saliency_curves(levels: Counts) -> SaliencyCurves:
    """Return the curves of pictures of which the pixels are counted by side and level.

    Args:
        levels: int64 [..., 2, 256], of ``SaliencyPair.of(prediction, truth).parts``.
    """
    cut = at_levels(levels)
    precision, recall = precision_recall(cut)
    return SaliencyCurves(precision, recall, f_measure(precision, recall), e_measure(cut))


def score_saliency(
    prediction: npt.ArrayLike | Tensor, truth: npt.ArrayLike | Tensor, *, min_max: bool = True
) -> PictureSaliency:
    """Score one saliency map.

    Args:
        prediction: probability of being salient, [H, W], array or tensor: any float in [0, 1],
            uint8 0..255, uint16 0..65535 or bool.
        truth: the same size: bool, uint8 0..255 (foreground above 128) or any float in [0, 1]
            (likewise).
        min_max: stretch the map to span [0, 1] first, as PySODMetrics does.

    Raises:
        TypeError: another type.
        ValueError: not [H, W], no pixels, sizes that differ, values out of range or not finite,
            pixels without a label (-1).

    Example:
        >>> truth = torch.tensor([[0, 0, 255], [0, 255, 255]], dtype=torch.uint8)
        >>> score_saliency(truth, truth).mae
        0.0
    """
    pair = SaliencyPair.of(prediction, truth, min_max=min_max)
    cut = at_twice_the_mean(pair.parts.bright, pair.parts.pixels.sum((0, 1)))
    return PictureSaliency(
        mean_absolute_error(pair),
        s_measure(pair),
        weighted_f(pair),
        float(f_measure(*precision_recall(cut))),
        float(e_measure(cut)),
        saliency_curves(pair.parts.levels),
        min_max,
    )


class SaliencyScores(Metric):
    """Mean absolute error, F, S, E and weighted F of saliency maps.

    Keeps a picture's scores and, for the curves, its pixels counted by side and level. So a
    picture, known by its index, counts once, however many processes saw it, and neither order nor
    batches change a digit. A predicted value that is not finite is no answer, which is wrong: it
    counts as the opposite of its truth; ``column("not_finite")`` tells where there were any.

    Args:
        min_max: stretch each map to span [0, 1] first, as PySODMetrics does; without it, values
            count as they are. The result says which, as 1 or 0 under ``min_max``.

    Shape:
        update: index int64 [], prediction [H, W], target [H, W], as :func:`score_saliency` takes
            them. One picture at a time: sizes differ.
        compute: all in [0, 1], means over pictures: ``mae``, ``s_measure``, ``weighted_f``;
            ``max_f``: maximum over thresholds of F of the mean precision and the mean recall, the
            classic one; ``max_f_of_mean_curve``: maximum of the mean of the pictures' curves, which
            PySODMetrics reports; ``mean_of_max_f``: mean of the pictures' maxima; ``mean_f``: mean
            over pictures and thresholds; ``adaptive_f``; ``e_measure``: mean over pictures and
            thresholds; ``max_e``: maximum of the mean curve; ``adaptive_e``; ``min_max``.
    """

    full_state_update = False
    rows: list[Tensor]

    SCORES = (
        "mae",
        "max_f",
        "max_f_of_mean_curve",
        "mean_of_max_f",
        "mean_f",
        "adaptive_f",
        "s_measure",
        "e_measure",
        "max_e",
        "adaptive_e",
        "weighted_f",
    )
    COLUMNS = ("index", "mae", "s_measure", "weighted_f", "not_finite")

    def __init__(self, min_max: bool = True) -> None:
        super().__init__()
        self.min_max = min_max
        # [1, n]: the columns, bright pixels, all pixels (both of each side), levels of each side
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.table = torch.empty(0, len(self.COLUMNS), dtype=torch.float64)
        self.curves = SaliencyCurves(*np.full((4, LEVELS), np.nan))

    def update(self, index: Tensor, prediction: Tensor, target: Tensor) -> None:
        """Add one picture."""
        not_finite = 0
        if prediction.is_floating_point() and prediction.shape == target.shape:
            wrong = ~prediction.isfinite()
            not_finite = int(wrong.sum())
            if not_finite:
                opposite = torch.from_numpy(~foreground_of(target)).to(prediction)
                prediction = torch.where(wrong, opposite, prediction)
        pair = SaliencyPair.of(prediction, target, min_max=self.min_max)
        scores = (int(index), mean_absolute_error(pair), s_measure(pair), weighted_f(pair))
        sides = (pair.parts.bright, pair.parts.pixels.sum((0, 1)), pair.parts.levels.ravel())
        row = np.concatenate((scores, [not_finite], *sides))
        self.rows.append(torch.from_numpy(row)[None].to(self.device))

    def column(self, name: str) -> Tensor:
        """Return one number per picture that the last ``compute`` saw, [N] float64.

        They are in the order of the pictures' indices and come from all processes.
        """
        return self.table[:, self.COLUMNS.index(name)]

    def expect_none(self) -> None:
        """Be ready to compute with other processes' pictures without one of this process."""
        width = len(self.COLUMNS) + 4 + 2 * LEVELS
        self.rows.append(torch.empty(0, width, dtype=torch.float64, device=self.device))

    def compute(self) -> dict[str, float]:
        """Return the scores of all pictures so far, of all processes; nan where there are none.

        :attr:`curves` then holds the means of the pictures' curves, for a figure.
        """
        rows = dim_zero_cat(self.rows).cpu().numpy()
        rows = rows[np.unique(rows[:, 0], return_index=True)[1]]
        self.table = torch.from_numpy(rows[:, : len(self.COLUMNS)])
        if not len(rows):
            return {**dict.fromkeys(self.SCORES, math.nan), "min_max": float(self.min_max)}
        counts = rows[:, len(self.COLUMNS) :].astype(np.int64)
        adaptive = at_twice_the_mean(counts[:, :2], counts[:, 2:4])
        curves = saliency_curves(counts[:, 4:].reshape(-1, 2, LEVELS))
        self.curves = SaliencyCurves(*(curve.mean(0) for curve in curves))
        mean = dict(zip(self.COLUMNS, rows.mean(0).tolist(), strict=False))
        scores = {
            "mae": mean["mae"],
            "max_f": f_measure(self.curves.precision, self.curves.recall).max(),
            "max_f_of_mean_curve": self.curves.f.max(),
            "mean_of_max_f": curves.f.max(1).mean(),
            "mean_f": self.curves.f.mean(),
            "adaptive_f": f_measure(*precision_recall(adaptive)).mean(),
            "s_measure": mean["s_measure"],
            "e_measure": self.curves.e.mean(),
            "max_e": self.curves.e.max(),
            "adaptive_e": e_measure(adaptive).mean(),
            "weighted_f": mean["weighted_f"],
        }
        found = {name: float(scores[name]) for name in self.SCORES}
        return {**found, "min_max": float(self.min_max)}
