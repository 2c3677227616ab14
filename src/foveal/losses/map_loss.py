"""The training loss of a network with maps of several tasks: one term for each, added.

Source: the official code of PoolNet (arXiv:1904.09569), the sibling of DFI, for two tasks; that
DFI adds its three likewise is recalled, not read.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from foveal.config import DENSE_TASKS
from foveal.losses.map_cross_entropy import (
    REDUCTIONS,
    balanced_map_cross_entropy,
    labelled_pictures,
    map_cross_entropy,
)
from foveal.names import unknown

MAP_LOSSES = ("balanced_cross_entropy", "cross_entropy")
_LINES = ("edge", "skeleton")


class MapLoss(nn.Module):
    """The sum over tasks of the cross entropy of all maps that a task is trained by.

    Args:
        tasks: those that the network has.
        name: ``balanced_cross_entropy`` balances the few pixels of edges and skeletons against all
            others (:func:`~foveal.losses.balanced_map_cross_entropy`); saliency has the plain
            :func:`~foveal.losses.map_cross_entropy`. ``cross_entropy`` is plain for all.
        saliency_weight: of that task's term; 0 leaves it out.
        edge_weight: likewise.
        skeleton_weight: likewise.
        side_weight: of each side map beside the fused one, where a task has deep supervision.
        threshold: above which a pixel of a line counts as positive, in [0, 1).
        negative_factor: of the weight of negatives, 1.1 in the authors' code.
        reduction: ``mean`` or ``sum_per_image``.

    Shape:
        input: task → logits [B, 1, H, W], the fused ones first, then those of side maps; targets:
        task → [B, 1, H, W] in [0, 1], below 0 where there is no label. Output: a scalar.

    Raises:
        ValueError: an unknown name, reduction or task, no task, or a number out of range.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        name: str = "balanced_cross_entropy",
        *,
        saliency_weight: float = 1.0,
        edge_weight: float = 1.0,
        skeleton_weight: float = 1.0,
        side_weight: float = 1.0,
        threshold: float = 0.5,
        negative_factor: float = 1.1,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if name not in MAP_LOSSES:
            raise ValueError(unknown("loss of dense tasks", name, MAP_LOSSES))
        if reduction not in REDUCTIONS:
            raise ValueError(unknown("reduction", reduction, REDUCTIONS))
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must lie in [0, 1), not {threshold!r}")
        numbers = {
            "saliency_weight": saliency_weight,
            "edge_weight": edge_weight,
            "skeleton_weight": skeleton_weight,
            "side_weight": side_weight,
            "negative_factor": negative_factor,
        }
        for key, value in numbers.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{key} must be at least 0 and finite, not {value!r}")
        for task in tasks:
            if task not in DENSE_TASKS:
                raise ValueError(unknown("task", task, DENSE_TASKS))
        if not tasks:
            raise ValueError(f"tasks must be at least one of {', '.join(DENSE_TASKS)}")
        self.weights = {task: numbers[f"{task}_weight"] for task in DENSE_TASKS if task in tasks}
        self.side_weight = side_weight
        plain: Any = partial(map_cross_entropy, reduction=reduction)
        balanced: Any = partial(
            balanced_map_cross_entropy,
            threshold=threshold,
            negative_factor=negative_factor,
            reduction=reduction,
        )
        lines = balanced if name == "balanced_cross_entropy" else plain
        self.terms = {task: lines if task in _LINES else plain for task in self.weights}

    def forward(
        self, outputs: Mapping[str, Sequence[Tensor]], targets: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the loss of a batch; 0 where no picture has a label for any task."""
        total: Tensor | float = 0.0
        for task, weight in self.weights.items():
            fused, *sides = outputs[task]
            pictures = labelled_pictures(targets[task])
            loss = self.terms[task](fused, targets[task], pictures=pictures)
            for side in sides:
                of_side = self.terms[task](side, targets[task], pictures=pictures)
                loss = loss + self.side_weight * of_side
            total = total + weight * loss
        assert isinstance(total, Tensor)
        return total
