"""How well objects of different sizes are found: what a mean over classes hides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

TERTILES = (1 / 3, 2 / 3)


@dataclass(frozen=True, eq=False)
class ObjectSizeIoU:
    """Intersection over union of objects, and its means over groups of their sizes.

    Attributes:
        iou: of each object, float64 [N] in [0, 1]; nan where neither mask nor truth has a pixel.
        area: true pixels of each object, int64 [N].
        edges: areas at which the groups begin, the first group aside.
        means: of each group, from the smallest objects to the largest; nan for a group without one.
        mean: over all objects that have true pixels; nan if there is none.
    """

    iou: Tensor
    area: Tensor
    edges: tuple[float, ...]
    means: tuple[float, ...]
    mean: float


def iou_by_object_size(
    masks: Tensor, truth: Tensor, edges: Literal["tertile"] | Sequence[float] = "tertile"
) -> ObjectSizeIoU:
    """Return the intersection over union of objects, and its means over groups of their sizes.

    An object for which nothing was found counts with 0. One without true pixels has no size and is
    in no mean.

    Args:
        masks: what was found of each object, boolean or 0 and 1, [N, H, W].
        truth: its true pixels, like ``masks``.
        edges: areas in pixels at which groups begin; an object of just this area belongs to the
            larger group. ``"tertile"``: two, between which a third of the objects lies each
            (quantiles of their areas, interpolated linearly).

    Raises:
        ValueError: the shapes differ or are not [N, H, W], or the edges do not ascend.

    Example:
        >>> truth = torch.zeros(3, 2, 3)
        >>> truth[0, 0, 0] = truth[1, 0] = truth[2] = 1
        >>> found = iou_by_object_size(torch.ones(3, 2, 3), truth)
        >>> found.area.tolist(), [round(mean, 3) for mean in found.means]
        ([1, 3, 6], [0.167, 0.5, 1.0])
    """
    if masks.shape != truth.shape or masks.ndim != 3:
        raise ValueError(
            "masks and truth must have the same shape [N, H, W], not "
            f"{list(masks.shape)} and {list(truth.shape)}"
        )
    found, true = masks.flatten(1).bool(), truth.flatten(1).bool()
    area = true.sum(1)
    iou = (found & true).sum(1).double() / (found | true).sum(1)  # 0 / 0 is nan
    begins, means = means_by_object_size(iou, area, edges)
    return ObjectSizeIoU(iou, area, begins, means, _mean(iou[area > 0]))


def means_by_object_size(
    values: Tensor, area: Tensor, edges: Literal["tertile"] | Sequence[float] = "tertile"
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return means of any value of objects over groups of their sizes.

    Args:
        values: of each object, [N].
        area: its true pixels, [N]; an object without any is in no group.
        edges: as of :func:`iou_by_object_size`.

    Returns:
        The areas at which the groups begin, the first group aside, and the means, from the
        smallest objects to the largest; nan for a group without one.

    Raises:
        ValueError: the edges do not ascend.

    Example:
        >>> means_by_object_size(torch.tensor([0.25, 0.5, 1.0]), torch.tensor([9, 90, 900]), [50])
        ((50.0,), (0.25, 0.75))
    """
    known, sizes = values[area > 0], area[area > 0].double()
    if edges == "tertile":
        borders = np.quantile(sizes.cpu().numpy(), TERTILES) if len(sizes) else np.full(2, np.nan)
        begins = tuple(float(border) for border in borders)
    else:
        begins = tuple(float(edge) for edge in edges)
        if any(not low < high for low, high in pairwise(begins)):
            raise ValueError(f"edges must ascend, not {list(begins)}")
    groups = torch.bucketize(sizes, sizes.new_tensor(begins), right=True)
    means = tuple(_mean(known[groups == group]) for group in range(len(begins) + 1))
    return begins, means


def spearman(steps: Tensor, areas: Tensor) -> float:
    """Return Spearman's correlation of the steps taken for objects with the areas of these.

    Equal values share the mean of their ranks. Objects of area 0 are left out.

    Args:
        steps: [N].
        areas: true pixels, [N].

    Returns:
        In [-1, 1]; nan of fewer than two objects, or where all steps or all areas are equal.

    Raises:
        ValueError: another shape.

    Example:
        >>> round(spearman(torch.tensor([1, 1, 3, 2]), torch.tensor([10, 20, 90, 30])), 4)
        0.9487
    """
    steps, areas = torch.as_tensor(steps), torch.as_tensor(areas)
    if steps.ndim != 1 or steps.shape != areas.shape:
        raise ValueError(
            "steps and areas must have the same shape [N], not "
            f"{list(steps.shape)} and {list(areas.shape)}"
        )
    kept = areas > 0
    ranks = [rankdata(values[kept].cpu().numpy()) for values in (steps, areas)]
    if any(len(np.unique(values)) < 2 for values in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan
