"""How well a classifier names pictures, and how well it knows when it does not.

Every score is a mean over pictures that is summed exactly (``math.fsum``), so it does not depend
on the order of the pictures, on the batches or on the number of processes.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities import dim_zero_cat


def exact_mean(values: Tensor) -> float:
    """Return the correctly rounded mean of a one-dimensional tensor; nan for an empty one."""
    return math.fsum(values.tolist()) / len(values) if len(values) else math.nan


class CalibrationBins(NamedTuple):
    """Pictures sorted by confidence into equally wide intervals.

    Attributes:
        pictures: number of pictures of each bin, int64 [bins].
        confidence: their mean confidence, float64 [bins]; nan in an empty bin.
        accuracy: share of right predictions, float64 [bins]; nan in an empty bin.
    """

    pictures: Tensor
    confidence: Tensor
    accuracy: Tensor


def calibration_bins(confidence: Tensor, correct: Tensor, bins: int = 15) -> CalibrationBins:
    """Sort pictures by confidence into the intervals (0, 1/bins], (1/bins, 2/bins] and so on.

    Args:
        confidence: probability of the predicted class, [N] in [0, 1]; nan is left out.
        correct: 1 where the prediction is right, else 0, [N].
        bins: number of intervals.

    Example:
        >>> confidence, correct = torch.tensor([0.4, 0.9, 0.8]), torch.tensor([1.0, 1.0, 0.0])
        >>> bins = calibration_bins(confidence, correct, bins=2)
        >>> bins.pictures.tolist(), bins.accuracy.tolist()
        ([1, 2], [1.0, 0.5])
    """
    known = ~confidence.isnan()
    confidence, correct = confidence[known].double(), correct[known].double()
    bin_of = (confidence * bins).ceil().clamp(1, bins).long() - 1
    members = [bin_of == b for b in range(bins)]
    return CalibrationBins(
        torch.bincount(bin_of, minlength=bins),
        *(
            torch.tensor([exact_mean(values[m]) for m in members], dtype=torch.float64)
            for values in (confidence, correct)
        ),
    )


def expected_calibration_error(confidence: Tensor, correct: Tensor, bins: int = 15) -> float:
    r"""Mean gap between confidence and accuracy.

    :math:`\sum_b \frac{n_b}{n} |acc_b - conf_b|` over the bins of :func:`calibration_bins`.

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.

    Args:
        confidence: probability of the predicted class, [N] in [0, 1].
        correct: 1 where the prediction is right, else 0, [N].
        bins: number of intervals.

    Returns:
        A fraction in [0, 1]; nan without pictures or where a confidence is nan.

    Example:
        >>> expected_calibration_error(torch.tensor([0.8, 0.8]), torch.tensor([1.0, 0.0]))
        0.3...
    """
    if not len(confidence) or confidence.isnan().any():
        return math.nan
    count, mean_confidence, accuracy = calibration_bins(confidence, correct, bins)
    gaps = (accuracy - mean_confidence).abs() * count
    return math.fsum(gaps[count > 0].tolist()) / len(confidence)


class ClassificationScores(Metric):
    """Accuracy, top-5 accuracy, calibration error and negative log-likelihood of one label each.

    Keeps six numbers per picture, so that confusion matrices and lists of mistakes need no second
    pass. A picture, known by its index, counts once, however many processes saw it. Of equal
    logits the first class comes first. Logits that are not all finite are a wrong answer in every
    score: prediction -1, rank K, confidence and nll nan.

    Shape:
        update: index [B], logits [B, K], target int64 [B] in [0, K).
        compute: ``{"accuracy", "accuracy_top5", "ece", "nll"}``, nll in nats, the rest in [0, 1].
    """

    full_state_update = False
    rows: list[Tensor]

    COLUMNS = ("index", "target", "prediction", "confidence", "nll", "rank")

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.table = torch.empty(0, len(self.COLUMNS), dtype=torch.float64)

    def update(self, index: Tensor, logits: Tensor, target: Tensor) -> None:
        """Add one batch."""
        logits = logits.detach().double()
        log_p = logits.log_softmax(1)
        nll = -log_p.gather(1, target[:, None])[:, 0]
        order = logits.argsort(dim=1, descending=True, stable=True)
        confidence = log_p.gather(1, order[:, :1])[:, 0].exp()
        rank = (order == target[:, None]).int().argmax(1)
        broken = ~logits.isfinite().all(1)
        columns = (
            index.double(),
            target.double(),
            order[:, 0].masked_fill(broken, -1).double(),
            confidence.masked_fill(broken, math.nan),
            nll.masked_fill(broken, math.nan),
            rank.masked_fill(broken, logits.shape[1]).double(),
        )
        self.rows.append(torch.stack(columns, 1))

    def column(self, name: str) -> Tensor:
        """Return one number per picture that the last ``compute`` saw, [N] float64.

        They are in the order of the pictures' indices and come from all processes.
        """
        return self.table[:, self.COLUMNS.index(name)]

    def compute(self) -> dict[str, float]:
        """Return the scores of all pictures so far, of all processes."""
        table = dim_zero_cat(self.rows).cpu()
        self.table = table[_each_once(table[:, 0])]
        answered = self.column("prediction") >= 0  # rank K alone may be below 5
        correct = (self.column("prediction") == self.column("target")).double()
        return {
            "accuracy": exact_mean(correct),
            "accuracy_top5": exact_mean((answered & (self.column("rank") < 5)).double()),
            "ece": expected_calibration_error(self.column("confidence"), correct),
            "nll": exact_mean(self.column("nll")),
        }

    def confusion(self, num_classes: int) -> Tensor:
        """Return counts [K, K], row = true class, column = predicted class.

        Pictures whose logits are not finite have no predicted class and are left out.
        """
        answered = self.column("prediction") >= 0
        target, prediction = self.column("target")[answered], self.column("prediction")[answered]
        pairs = target.long() * num_classes + prediction.long()
        return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


class MultiLabelScores(Metric):
    """Scores of a classifier whose classes are each present or not.

    A picture, known by its index, counts once, however many processes saw it.

    Shape:
        update: index [B], logits [B, K] of independent classes, target float [B, K] of 0 and 1.
        compute: ``map`` (mean over classes of average precision; a class without a positive is
            left out), ``accuracy`` (share of right yes/no answers at probability 0.5), ``nll``
            (mean binary cross entropy, nats).
    """

    full_state_update = False
    indices: list[Tensor]
    logits: list[Tensor]
    targets: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for state in ("indices", "logits", "targets"):
            self.add_state(state, [], dist_reduce_fx="cat")
        self.probabilities = self.truth = torch.empty(0, num_classes, dtype=torch.float64)

    def update(self, index: Tensor, logits: Tensor, target: Tensor) -> None:
        """Add one batch."""
        self.indices.append(index)
        self.logits.append(logits.detach().double())
        self.targets.append(target.double())

    def compute(self) -> dict[str, float]:
        """Return the scores of all pictures so far, of all processes.

        ``probabilities`` and ``truth``, both [N, K], then hold them in the pictures' order.
        """
        order = _each_once(dim_zero_cat(self.indices))
        logits = dim_zero_cat(self.logits)[order].cpu()
        targets = dim_zero_cat(self.targets)[order].cpu()
        self.probabilities, self.truth = logits.sigmoid(), targets
        present = targets.sum(0) > 0
        precision = [
            binary_average_precision(logits[:, k], targets[:, k].long()).double()
            for k in present.nonzero()[:, 0].tolist()
        ]
        nll = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, targets, reduction="none"
        )
        right = ((logits > 0) == (targets > 0.5)).double()
        return {
            "map": exact_mean(torch.stack(precision)) if precision else math.nan,
            "accuracy": exact_mean(right.flatten()),
            "nll": exact_mean(nll.flatten()),
        }


def _each_once(index: Tensor) -> Tensor:
    """Return where each index occurs first, in the order of the indices; index is [N]."""
    order = index.argsort(stable=True)
    in_order = index[order]
    new = torch.ones_like(in_order, dtype=torch.bool)
    new[1:] = in_order[1:] != in_order[:-1]
    return order[new]
