"""How well a network says what each pixel shows.

Pixels are counted as whole numbers, and the counts of pictures are added up before anything is
divided: the scores do not depend on the order of the pictures, on the batches or on the number of
processes.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

IGNORED = 255
"""Label of the pixels that count for nothing."""


def confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, ignore: int = IGNORED
) -> Tensor:
    """Count pixels by true class and predicted class.

    Args:
        prediction: integers in [0, K); anything else is no answer, which is wrong; any shape.
        target: integers in [0, K), or ``ignore``; the prediction's shape.
        num_classes: K.
        ignore: label of the pixels that are left out.

    Returns:
        int64 [K, K + 1]: row = true class, column = predicted class, the last one = no answer.

    Raises:
        ValueError: the shapes differ, or a label is neither a class nor ``ignore``.

    Example:
        >>> prediction, target = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 255])
        >>> confusion_matrix(prediction, target, 2).tolist()
        [[1, 1, 0], [0, 1, 0]]
    """
    if prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must have the same shape, not "
            f"{list(prediction.shape)} and {list(target.shape)}"
        )
    target, prediction = target.flatten().long(), prediction.flatten().long()
    counted = target != ignore
    target, prediction = target[counted], prediction[counted]
    wrong = (target < 0) | (target >= num_classes)
    if wrong.any():
        raise ValueError(
            f"label {int(target[wrong][0])} is no class: there are {num_classes}, and {ignore} "
            "is ignored"
        )
    no_answer = (prediction < 0) | (prediction >= num_classes)
    cells = target * (num_classes + 1) + prediction.masked_fill(no_answer, num_classes)
    counts = torch.bincount(cells, minlength=num_classes * (num_classes + 1))
    return counts.view(num_classes, num_classes + 1)


def class_iou(confusion: Tensor) -> list[float]:
    """Return intersection over union of each class, in [0, 1].

    Args:
        confusion: of :func:`confusion_matrix`; a square [K, K] does as well.

    Returns:
        K numbers; nan for a class that is neither in the truth nor predicted.

    Example:
        >>> class_iou(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]]))
        [0.5, 0.5, nan]
    """
    both = confusion.diagonal().tolist()
    true, predicted = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    unions = [t + p - b for b, t, p in zip(both, true, predicted, strict=False)]
    return [b / union if union else math.nan for b, union in zip(both, unions, strict=True)]


class Overlap(NamedTuple):
    """Means over classes and over pixels, each in [0, 1]; nan where there is not one pixel.

    Attributes:
        miou: mean intersection over union of the classes that are in the truth or predicted.
        pixel_accuracy: share of pixels whose class is predicted.
    """

    miou: float
    pixel_accuracy: float


def overlap(confusion: Tensor) -> Overlap:
    """Return mean intersection over union and pixel accuracy of a confusion matrix.

    A class that is neither in the truth nor predicted is left out of the mean. (SPNet's official
    code counts it as 0.)

    Args:
        confusion: of :func:`confusion_matrix`; a square [K, K] does as well.

    Example:
        >>> overlap(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]]))
        Overlap(miou=0.5, pixel_accuracy=0.6...)
    """
    known = [value for value in class_iou(confusion) if not math.isnan(value)]
    pixels, right = int(confusion.sum()), int(confusion.diagonal().sum())
    return Overlap(
        math.fsum(known) / len(known) if known else math.nan,
        right / pixels if pixels else math.nan,
    )


class SegmentationScores(Metric):
    """Mean intersection over union, pixel accuracy, and intersection over union of each class.

    Keeps for each picture how many pixels of which class were predicted as which (the cells of its
    confusion matrix that are not 0), so that a picture, known by its index, counts once, however
    many processes saw it. A picture that is ignored as a whole counts for nothing.

    Args:
        classes: names of the K classes.

    Shape:
        update: index int64 [], prediction integer [H, W] in [0, K) (else no answer, which is
            wrong), target integer [H, W] in [0, K) or 255. One picture at a time: sizes differ.
        compute: ``{"miou", "pixel_accuracy", "iou/<class>"...}`` in [0, 1]. A class that is neither
            in the truth nor predicted is left out, of the mean too; :attr:`absent` names it.
    """

    full_state_update = False
    pictures: list[Tensor]
    cells: list[Tensor]

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("pictures", [], dist_reduce_fx="cat")  # [1, 2]: index, number of cells
        self.add_state("cells", [], dist_reduce_fx="cat")  # [n, 2]: cell, pixels
        self.confusion = torch.zeros(len(classes), len(classes) + 1, dtype=torch.int64)

    def update(self, index: Tensor, prediction: Tensor, target: Tensor) -> None:
        """Add one picture."""
        counts = confusion_matrix(prediction, target, len(self.classes)).flatten()
        cells = counts.nonzero()[:, 0]
        self.pictures.append(torch.stack((index.to(cells), cells.new_tensor(len(cells))))[None])
        self.cells.append(torch.stack((cells, counts[cells]), 1))

    def compute(self) -> dict[str, float]:
        """Return the scores of all pictures so far, of all processes.

        :attr:`confusion` then holds their counts: int64 [K, K + 1], row = true class, column =
        predicted class, the last one = no answer.
        """
        pictures = dim_zero_cat(self.pictures).cpu()
        cells = dim_zero_cat(self.cells).cpu()
        first: dict[int, int] = {}
        for row, index in enumerate(pictures[:, 0].tolist()):
            first.setdefault(index, row)
        kept = torch.zeros(len(pictures), dtype=torch.bool)
        kept[list(first.values())] = True
        cells = cells[kept.repeat_interleave(pictures[:, 1])]
        total = torch.zeros(self.confusion.numel(), dtype=torch.int64)
        self.confusion = total.index_add(0, cells[:, 0], cells[:, 1]).view_as(self.confusion)
        by_class = zip(self.classes, class_iou(self.confusion), strict=True)
        return {
            **overlap(self.confusion)._asdict(),
            **{f"iou/{name}": value for name, value in by_class if not math.isnan(value)},
        }

    @property
    def shown(self) -> tuple[str, ...]:
        """Classes that the last ``compute`` found in the truth."""
        pixels = self.confusion.sum(1).tolist()
        return tuple(name for name, count in zip(self.classes, pixels, strict=True) if count)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that the last ``compute`` found neither in the truth nor predicted."""
        by_class = zip(self.classes, class_iou(self.confusion), strict=True)
        return tuple(name for name, value in by_class if math.isnan(value))
