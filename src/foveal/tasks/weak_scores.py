"""How good activations, mined regions and pseudo labels are, where there are true masks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.data.masks import IGNORED, LabelMap
from foveal.metrics import confusion_matrix, means_by_object_size, overlap, spearman
from foveal.mining import REASONS, MiningResult
from foveal.mining.pseudo_labels import seed_label_maps, seed_maps

THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(20))
"""At which class activation maps are cut."""

SIZES = ("small", "medium", "large")
"""Thirds of the objects, by their true areas."""


@dataclass(frozen=True)
class MinedObject:
    """A class in a picture: what there is of it and what was found.

    Attributes:
        area: true pixels.
        iou: of what was mined, intersection over union with those; ignored pixels count for none.
        seed_iou: the same of the class's activation cut at each of :data:`THRESHOLDS`.
        steps: that found something.
        reason: why mining stopped.
    """

    area: int
    iou: float
    seed_iou: tuple[float, ...]
    steps: int
    reason: str


class MinedScores:
    """Scores of a split, added up picture by picture.

    Args:
        num_labels: classes and the background.
        max_steps: most steps of a pair.
    """

    def __init__(self, num_labels: int, max_steps: int) -> None:
        self.num_labels = num_labels
        shape = (num_labels, num_labels + 1)
        self.seeds = torch.zeros((len(THRESHOLDS), *shape), dtype=torch.int64)
        self.by_step = torch.zeros((max_steps, *shape), dtype=torch.int64)
        self.labels = torch.zeros(shape, dtype=torch.int64)
        self.known, self.ignored = 0, 0
        self.objects: list[MinedObject] = []
        self.pictures = 0

    def add(
        self,
        truth: LabelMap,
        cams: Tensor,
        mined: MiningResult,
        by_step: list[Tensor],
        labels: LabelMap | None,
    ) -> None:
        """Add a picture.

        Args:
            truth: uint8 [H, W].
            cams: activations of its classes in the whole picture, [P, h, w].
            mined: what was mined in it, at its size.
            by_step: the label maps [H, W] that the first 1, 2, ... steps give.
            labels: its finished pseudo label map, uint8 [H, W]; None where there is none.
        """
        target = torch.from_numpy(truth).long()
        size = (target.shape[0], target.shape[1])
        classes = mined.pairs[:, 1]
        for k, found in enumerate(seed_label_maps(cams, classes, size, torch.tensor(THRESHOLDS))):
            self.seeds[k] += confusion_matrix(found, target, self.num_labels)
        for k, found in enumerate(by_step):
            self.by_step[k] += confusion_matrix(found, target, self.num_labels)
        if labels is not None:
            given = torch.from_numpy(labels != IGNORED)
            found = torch.from_numpy(labels).long()
            self.labels += confusion_matrix(found[given], target[given], self.num_labels)
            self.known += labels.size
            self.ignored += int((~given).sum())
        self.pictures += 1
        self._add_objects(target, cams, mined, size)

    def _add_objects(
        self, target: Tensor, cams: Tensor, mined: MiningResult, size: tuple[int, int]
    ) -> None:
        if not len(mined.pairs):
            return
        counted = target != IGNORED
        for p, activation in enumerate(seed_maps(cams, size)):
            true = target == mined.pairs[p, 1] + 1
            cut = activation > torch.tensor(THRESHOLDS)[:, None, None]
            self.objects.append(
                MinedObject(
                    area=int(true.sum()),
                    iou=float(_iou(mined.masks[p][None] & counted, true)[0]),
                    seed_iou=tuple(_iou(cut & counted, true).tolist()),
                    steps=int(mined.steps[p]),
                    reason=REASONS[int(mined.reason[p])],
                )
            )

    def curves(self) -> dict[str, list[float]]:
        """Return mean intersection over union at each threshold and after each step."""
        return {
            "threshold": list(THRESHOLDS),
            "seed_miou": [overlap(counts).miou for counts in self.seeds],
            "mined_miou": [overlap(counts).miou for counts in self.by_step],
        }

    @property
    def best(self) -> int:
        """Number of the threshold with the best label maps; the lowest of equal ones."""
        return int(np.nanargmax(self.curves()["seed_miou"]))

    def sizes(self) -> dict[str, dict[str, float]]:
        """Return means over small, medium and large objects: of regions, activations and steps."""
        area = torch.tensor([one.area for one in self.objects])
        values = {
            "mined_iou": [one.iou for one in self.objects],
            "seed_iou": [one.seed_iou[self.best] for one in self.objects],
            "steps": [float(one.steps) for one in self.objects],
            "area": [float(one.area) for one in self.objects],
        }
        return {
            name: dict(zip(SIZES, means_by_object_size(torch.tensor(v), area)[1], strict=True))
            for name, v in values.items()
        }

    def compute(self) -> dict[str, float]:
        """Return the scores; empty without a picture that has a mask."""
        if not self.pictures:
            return {}
        curves, sizes = self.curves(), self.sizes()
        steps = torch.tensor([one.steps for one in self.objects])
        area = torch.tensor([one.area for one in self.objects])
        return {
            "seed_miou": curves["seed_miou"][self.best],
            "seed_threshold": THRESHOLDS[self.best],
            "mined_miou": curves["mined_miou"][-1],
            "steps_area_spearman": spearman(steps, area) if len(steps) else math.nan,
            **{f"mined_iou_{size}": value for size, value in sizes["mined_iou"].items()},
            **{f"seed_iou_{size}": value for size, value in sizes["seed_iou"].items()},
            **(
                {
                    "labels_miou": overlap(self.labels).miou,
                    "labels_ignored": self.ignored / self.known,
                }
                if self.known
                else {}
            ),
        }

    def tables(self) -> Mapping[str, Any]:
        """Return what figures are drawn from."""
        if not self.pictures:
            return {"pictures": 0, "scores": {}}
        return {
            "pictures": self.pictures,
            "scores": self.compute(),
            "curves": self.curves(),
            "sizes": self.sizes(),
        }


def _iou(found: Tensor, true: Tensor) -> Tensor:
    """Return the intersection over union of masks [T, H, W] with a mask [H, W]; 0 of nothing."""
    both, either = (found & true).sum((1, 2)), (found | true).sum((1, 2))
    return both.double() / either.clamp(min=1)
