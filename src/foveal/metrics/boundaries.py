"""How well maps of edge or skeleton probabilities agree with lines that people drew.

The procedure of the Berkeley benchmark (BSDS): thin the map, cut it at many thresholds, match
predicted with drawn pixels one to one within a small distance, count, and only then divide. Counts
are whole numbers, so scores do not depend on the order of the pictures or on the number of
processes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from foveal.metrics.boundary_matching import Indices, Mask, match, pairs_within
from foveal.metrics.non_maximum_suppression import suppress_non_maxima
from foveal.metrics.probability_maps import Floats, as_array, probabilities


@dataclass(frozen=True, kw_only=True)
class BoundaryProtocol:
    """How boundaries are compared.

    Attributes:
        tolerance: largest distance of matched pixels as a share of the picture's diagonal.
        thresholds: T; they are k / (T + 1), k = 1 .. T.
        nms: suppress what is not on the crest of a ridge
            (:func:`~foveal.metrics.suppress_non_maxima`).
        thin: thin each cut map until its lines are one pixel wide.
        thin_truth: thin the truth too.
        stretch: divide each map by its largest value.

    Raises:
        ValueError: a tolerance outside [0, 1], or no threshold.
    """

    tolerance: float
    thresholds: int = 99
    nms: bool = True
    thin: bool = True
    thin_truth: bool = False
    stretch: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise ValueError(
                f"tolerance must be a share of the diagonal in [0, 1], not {self.tolerance}"
            )
        if self.thresholds < 1:
            raise ValueError(f"thresholds must be at least 1, not {self.thresholds}")

    @property
    def levels(self) -> Floats:
        """The thresholds, float64 [T], ascending."""
        return np.arange(1, self.thresholds + 1) / (self.thresholds + 1)


EDGES = BoundaryProtocol(tolerance=0.0075)
"""BSDS500's: Martin, Fowlkes, Malik 2004, PAMI 26(5); Arbelaez et al. 2011, PAMI 33(5)."""

SKELETONS = BoundaryProtocol(tolerance=0.01, thin_truth=True, stretch=True)
"""SK-LARGE's (recalled, not read in its code): each map divided by its maximum, truth thinned."""


class BoundaryCounts(NamedTuple):
    """Pixels of one picture, counted at T thresholds against A annotators.

    Attributes:
        true: pixels that each annotator drew, int64 [A].
        found: those of them that are matched, int64 [T, A].
        predicted: pixels of the thinned map, int64 [T].
        right: those of them that match any annotator, int64 [T].
    """

    true: Indices
    found: Indices
    predicted: Indices
    right: Indices

    @property
    def row(self) -> Indices:
        """What scores need of them, int64 [1 + 3 T]: true, found, predicted, right.

        True and found pixels are added up over the annotators.
        """
        total = np.array([self.true.sum()])
        return np.concatenate((total, self.found.sum(1), self.predicted, self.right))


def count_boundaries(
    prediction: ArrayLike | Tensor,
    truths: ArrayLike | Tensor | Iterable[ArrayLike],
    protocol: BoundaryProtocol = EDGES,
) -> BoundaryCounts:
    """Count predicted and true pixels of a picture, and those that match.

    A map that is 0 everywhere predicts nothing at any threshold. A constant one is, thinned, a line
    or a point; an annotator who drew nothing adds nothing, and what is predicted is then wrong
    unless another annotator drew it.

    Args:
        prediction: probability of a boundary, [H, W]: floats in [0, 1], uint8 0..255, uint16
            0..65535 or bool.
        truths: the boundaries that each of A >= 1 annotators drew, [A, H, W], or of one [H, W]:
            bool, or 0 and 1.
        protocol: :data:`EDGES`, :data:`SKELETONS`, or one's own.

    Raises:
        TypeError: values of another type.
        ValueError: another shape, sizes that differ, values out of range or not finite, or no
            annotator.

    Example:
        >>> truth = np.eye(40, dtype=bool)
        >>> plain = BoundaryProtocol(tolerance=0.01, nms=False)
        >>> counts = count_boundaries(0.6 * truth, truth, plain)
        >>> int(counts.true.sum()), [int(n) for n in counts.found[[0, 58, 59, 60], 0]]
        (40, [40, 40, 40, 0])
    """
    p, drawn = check_boundaries(prediction, truths)
    if protocol.stretch and p.max() > 0:
        p = p / p.max()
    if protocol.nms:
        p = suppress_non_maxima(p)
    if protocol.thin_truth:
        drawn = np.stack([_thinned(mask) for mask in drawn])
    cuts, cut_of = _cuts(p, protocol)
    ever = np.flatnonzero(np.logical_or.reduce(cuts))
    active = [cut.ravel()[ever] for cut in cuts]
    points = np.stack(np.unravel_index(ever, p.shape), 1)
    distance = protocol.tolerance * math.hypot(*p.shape)

    found = np.zeros((len(cuts), len(drawn)), np.int64)
    right = np.zeros((len(cuts), len(ever)), bool)
    for annotator, mask in enumerate(drawn):
        pairs = pairs_within(points, np.argwhere(mask), distance)
        for cut, chosen in enumerate(active):
            matched, _ = match(pairs.of(chosen))
            found[cut, annotator] = len(matched)
            right[cut, matched] = True
    return BoundaryCounts(
        true=drawn.sum((1, 2)),
        found=found[cut_of],
        predicted=np.array([int(chosen.sum()) for chosen in active])[cut_of],
        right=right.sum(1)[cut_of],
    )


class BoundarySummary(NamedTuple):
    """Scores of a set of pictures, each in [0, 1]; nan where not one pixel is true.

    Attributes:
        ods: best F at one threshold for all pictures (optimal data set scale).
        ois: F with each picture at its own best threshold (optimal image scale).
        ap: average precision, the area below precision as a function of recall.
        r50: recall at precision 0.5.
        threshold: where ``ods`` is reached.
        recall: at each threshold, float64 [T].
        precision: at each threshold, float64 [T]; 0 where nothing is predicted.
    """

    ods: float
    ois: float
    ap: float
    r50: float
    threshold: float
    recall: Floats
    precision: Floats


def summarize_boundaries(rows: ArrayLike) -> BoundarySummary:
    """Return the scores of pictures from their counts.

    * ``ods``: counts are summed over pictures; precision and recall are interpolated linearly
      between neighbouring thresholds, at 100 places.
    * ``ois``: of each picture the counts at its first best threshold are summed. A picture without
      true pixels has F = 0 at all of them, so its first counts, with all that it predicts there.
    * ``ap``: precision is interpolated linearly between the recalls that were reached, at 0, 0.01,
      .. 1; outside of them it is 0. Of equal recalls that at the lowest threshold counts.
    * ``r50``: likewise the other way round; at the lowest precision where that is above 0.5, and 0
      where none reaches 0.5.

    0 / 0 counts as 0 in all of them, except that without any true pixel there is no score.

    Source: the benchmark's ``collect_eval_bdry`` (read), and Dollár's ``edgesEvalDir`` for r50
    (recalled).

    Args:
        rows: int [N, 1 + 3 T], a :attr:`BoundaryCounts.row` of each picture.

    Example:
        >>> summary = summarize_boundaries([[10, 8, 4, 16, 4, 8, 4]])  # two thresholds
        >>> summary.recall.tolist(), summary.precision.tolist()
        ([0.8, 0.4], [0.5, 1.0])
        >>> summary.ois, round(summary.ods, 4), round(summary.threshold, 2)
        (0.6..., 0.6687, 0.47)
    """
    table = np.asarray(rows, np.int64)
    true, counts = table[:, :1], table[:, 1:].reshape(len(table), 3, table.shape[1] // 3)
    recall, precision = _rates(true.sum(0), *counts.sum(0))
    thresholds = counts.shape[2]
    if not true.any():
        nan = math.nan
        return BoundarySummary(nan, nan, nan, nan, nan, recall, precision)
    best = _f_measure(*_rates(true, *counts.transpose(1, 0, 2))).argmax(1)  # the first of equals
    at_best = counts[np.arange(len(table)), :, best].sum(0)
    ods, threshold = _best_between(recall, precision)
    return BoundarySummary(
        ods=ods,
        ois=float(_f_measure(*_rates(true.sum(), *at_best))),
        ap=_average_precision(recall, precision),
        r50=float(_interpolate(max(0.5, precision.min()), precision, recall)),
        threshold=threshold / (thresholds + 1),
        recall=recall,
        precision=precision,
    )


class BoundaryScores(Metric):
    """ODS, OIS, average precision and recall at precision 0.5 of edges or skeletons.

    Keeps the counts of each picture, so that a picture, known by its index, counts once, however
    many processes saw it.

    Args:
        protocol: how boundaries are compared: :data:`EDGES`, :data:`SKELETONS`, or with fewer
            thresholds ``dataclasses.replace(EDGES, thresholds=9)``.

    Shape:
        update: index int64 [], prediction [H, W] and truths [A, H, W] as
            :func:`count_boundaries` takes them. One picture at a time: sizes differ.
        compute: ``{"ods", "ois", "ap", "r50"}`` in [0, 1]; nan where not one pixel is true.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, protocol: BoundaryProtocol = EDGES) -> None:
        super().__init__()
        self.protocol = protocol
        self.add_state("rows", [], dist_reduce_fx="cat")  # [1, 2 + 3 T]: index, counts
        self.summary: BoundarySummary | None = None

    def update(self, index: Tensor, prediction: Tensor, truths: Tensor) -> None:
        """Add one picture; raises what :func:`count_boundaries` raises."""
        self.add(index, count_boundaries(prediction, truths, self.protocol).row)

    def add(self, index: Tensor, row: Indices) -> None:
        """Add one picture that was counted elsewhere.

        Args:
            index: of the picture, int64 [].
            row: its :attr:`BoundaryCounts.row` by this metric's protocol.
        """
        counts = torch.cat((index.cpu().view(1), torch.from_numpy(row)))
        self.rows.append(counts[None].to(self.device))
        self._computed = None  # torchmetrics keeps the last result until update() is called

    def expect_none(self) -> None:
        """Be ready to compute with other processes' pictures without one of this process."""
        width = 2 + 3 * self.protocol.thresholds
        self.rows.append(torch.empty(0, width, dtype=torch.int64, device=self.device))

    def compute(self) -> dict[str, float]:
        """Return the scores of all pictures so far, of all processes; nan where there are none.

        :attr:`summary` then holds them with the curve of recall and precision.
        """
        table = dim_zero_cat(self.rows).cpu().numpy()
        _, first = np.unique(table[:, 0], return_index=True)
        self.summary = summarize_boundaries(table[first, 1:])
        return {name: getattr(self.summary, name) for name in ("ods", "ois", "ap", "r50")}


def check_boundaries(
    prediction: ArrayLike | Tensor, truths: ArrayLike | Tensor | Iterable[ArrayLike]
) -> tuple[Floats, Mask]:
    """Return a map as float64 [H, W] in [0, 1], and what annotators drew as bool [A, H, W].

    Args:
        prediction: as :func:`count_boundaries` takes it.
        truths: likewise.

    Raises:
        TypeError, ValueError: as :func:`count_boundaries`.
    """
    given = as_array(prediction)
    if given.ndim != 2 or not given.size:
        raise ValueError(f"a prediction is [H, W] with at least one pixel, not {list(given.shape)}")
    p, drawn = probabilities(given), _masks(truths)
    if drawn.shape[1:] != p.shape:
        raise ValueError(
            f"the prediction has {p.shape[0]} rows and {p.shape[1]} columns, its truth "
            f"{drawn.shape[1]} and {drawn.shape[2]}; resize the prediction to the truth"
        )
    return p, drawn


def _masks(truths: Any) -> Mask:
    """Return what annotators drew as bool [A, H, W]."""
    if not isinstance(truths, np.ndarray | Tensor):
        try:
            truths = np.stack([as_array(truth) for truth in truths])
        except ValueError as error:
            raise ValueError(
                "the annotators of a picture must be one or more maps of one size"
            ) from error
    masks = as_array(truths)
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or not masks.size:
        raise ValueError(
            "truth is [A, H, W] with at least one annotator and pixel, or [H, W], not "
            f"{list(masks.shape)}"
        )
    if masks.dtype == np.bool_:
        return masks
    if masks.dtype.kind not in "iuf":
        raise TypeError(f"truth is bool, or 0 and 1, not {masks.dtype}")
    wrong = masks[(masks != 0) & (masks != 1)]
    if wrong.size:
        raise ValueError(f"truth is bool, or 0 and 1, but holds {wrong[0]:g}")
    return np.asarray(masks == 1)


def _cuts(p: Floats, protocol: BoundaryProtocol) -> tuple[list[Mask], Indices]:
    """Return the different thinned maps, and which of them each threshold has, [T]."""
    steps = [p >= level for level in protocol.levels]
    new = [i == 0 or not np.array_equal(steps[i], steps[i - 1]) for i in range(len(steps))]
    cuts = [step for step, is_new in zip(steps, new, strict=True) if is_new]
    return [_thinned(cut) for cut in cuts] if protocol.thin else cuts, np.cumsum(new) - 1


def _thinned(mask: Mask) -> Mask:
    from skimage.morphology import thin

    # As 0 and 1: Pillow's arrays of mode "1" hold 255, of which thin() makes nonsense.
    return np.asarray(thin(mask.astype(np.uint8)), np.bool_)  # type: ignore[no-untyped-call]


def _rates(true: Any, found: Any, predicted: Any, right: Any) -> tuple[Floats, Floats]:
    """Return recall and precision; 0 / 0 counts as 0."""
    return found / np.maximum(true, 1), right / np.maximum(predicted, 1)


def _f_measure(recall: Any, precision: Any) -> Floats:
    total = recall + precision
    f: Floats = 2 * recall * precision / np.where(total > 0, total, 1)
    return f


def _best_between(recall: Floats, precision: Floats) -> tuple[float, float]:
    """Return the best F and where it is: 1 at the first threshold, T at the last."""
    share = np.linspace(0, 1, 100)  # the benchmark's 100 places, both ends among them
    between = [
        values[:-1, None] * (1 - share) + values[1:, None] * share for values in (recall, precision)
    ]
    f = np.concatenate((_f_measure(recall[:1], precision[:1]), _f_measure(*between).ravel()))
    place = np.concatenate(([0.0], (np.arange(len(recall) - 1)[:, None] + share).ravel()))
    best = int(f.argmax())
    return float(f[best]), 1 + float(place[best])


def _average_precision(recall: Floats, precision: Floats) -> float:
    """Return the area below the curve; 0 for a curve of one point, such as of a binary map."""
    if (recall == recall[0]).all():
        return 0.0
    return float(_interpolate(np.arange(101) / 100, recall, precision).sum() / 100)


def _interpolate(at: Any, x: Floats, y: Floats) -> Floats:
    """Interpolate y linearly between the values of x; 0 outside."""
    x, first = np.unique(x, return_index=True)
    return np.asarray(np.interp(at, x, y[first], left=0, right=0))
