"""Scores of a network that finds salient objects, edges and skeletons, together."""

import dataclasses
import math
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveal.config import DENSE_TASKS
from foveal.metrics.boundaries import (
    EDGES,
    SKELETONS,
    BoundaryProtocol,
    BoundaryScores,
    count_boundaries,
)
from foveal.metrics.boundary_matching import Indices
from foveal.metrics.saliency import SaliencyScores

MAIN = {"saliency": "max_f", "edge": "ods", "skeleton": "ods"}
"""The score of each task by which networks are compared."""

MOST_WAITING = 64
"""Pictures that wait for a pool, with their maps in memory."""


class MapScores(nn.Module):
    """The scores of several tasks, and the mean of their main ones.

    Args:
        tasks: some of ``saliency``, ``edge`` and ``skeleton``.
        min_max: of :class:`~foveal.metrics.SaliencyScores`.
        thresholds: at which edges and skeletons are cut.

    Attributes:
        pool: processes that count the pixels of edges and skeletons, which takes up to seconds a
            picture; None: :meth:`update` does it.
        not_finite: task → pictures with values that are no numbers; until ``compute`` those of
            this process.
        without_score: tasks that the last ``compute`` found no picture for, or no true pixel.

    Shape:
        update: one picture; task → prediction [H, W] in [0, 1], and task → truth of the tasks that
            the picture has a label for, as the tasks' own metrics take them.
        compute: ``{"mean": ..., "saliency/mae": ..., "edge/ods": ...}``. ``mean`` is that of the
            tasks' :data:`MAIN` scores; a task without pictures has none, and is left out.
    """

    def __init__(self, tasks: Sequence[str], *, min_max: bool = True, thresholds: int = 99) -> None:
        super().__init__()
        protocols = {"edge": EDGES, "skeleton": SKELETONS}
        self.of_task = nn.ModuleDict(
            {
                task: BoundaryScores(protocols[task])
                if task in protocols
                else SaliencyScores(min_max)
                for task in DENSE_TASKS
                if task in tasks
            }
        )
        self.pool: Executor | None = None
        self.cut_at(thresholds)
        self.reset()

    def cut_at(self, thresholds: int) -> None:
        """Cut edges and skeletons at so many thresholds; before the first picture only."""
        for scores in self.of_task.values():
            if isinstance(scores, BoundaryScores):
                scores.protocol = dataclasses.replace(scores.protocol, thresholds=thresholds)

    def reset(self) -> None:
        """Forget all pictures."""
        self.without_score: tuple[str, ...] = ()
        self.not_finite = dict.fromkeys(self.of_task, 0)
        self._counting: deque[tuple[BoundaryScores, Tensor, Future[Indices]]] = deque()
        for scores in self.of_task.values():
            scores.reset()  # type: ignore[operator]

    def update(
        self, index: Tensor, predictions: Mapping[str, Tensor], truths: Mapping[str, Tensor]
    ) -> None:
        """Add one picture.

        A value of an edge or skeleton that is no number predicts nothing.
        """
        for task, truth in truths.items():
            if task not in self.of_task:
                continue
            prediction = predictions[task]
            self.not_finite[task] += not bool(prediction.isfinite().all())
            scores, truth = self.of_task[task], truth.cpu()
            if isinstance(scores, SaliencyScores):
                scores.update(index, prediction.cpu(), truth)
                continue
            assert isinstance(scores, BoundaryScores)
            prediction = prediction.nan_to_num(0, 0, 0).cpu()
            if self.pool is None:
                scores.update(index, prediction, truth)
            else:  # as arrays: tensors would travel in shared memory, a file each
                arrays = (prediction.numpy(), truth.numpy())
                counting = self.pool.submit(_count, *arrays, scores.protocol)
                self._counting.append((scores, index, counting))
                while len(self._counting) > MOST_WAITING:
                    self._take_oldest()

    def wait(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Wait until the pool has counted all pictures of this process.

        Args:
            progress: called with (done, total).
        """
        total = len(self._counting)
        while self._counting:
            self._take_oldest()
            progress(total - len(self._counting), total)

    def _take_oldest(self) -> None:
        """Wait for the picture that was given to the pool first.

        Raises:
            OSError: the pool's processes ended.
        """
        scores, index, counting = self._counting.popleft()
        try:
            scores.add(index, counting.result())
        except BrokenProcessPool as error:
            raise OSError(
                "a process that counted lines was ended, perhaps as memory ran out"
            ) from error

    def compute(self) -> dict[str, float]:
        """Return the scores of all pictures so far, of all processes; nan where there are none."""
        self.wait()
        self._add_up_not_finite()
        found: dict[str, float] = {}
        for task, scores in self.of_task.items():
            assert isinstance(scores, BoundaryScores | SaliencyScores)
            scores.expect_none()  # of several processes, some may have seen no picture of a task
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*``compute`` method", UserWarning)
                values = scores.compute()
            found |= {f"{task}/{name}": value for name, value in values.items()}
        main = {task: found[f"{task}/{MAIN[task]}"] for task in self.of_task}
        self.without_score = tuple(task for task, value in main.items() if math.isnan(value))
        known = [value for value in main.values() if not math.isnan(value)]
        return {"mean": math.fsum(known) / len(known) if known else math.nan, **found}

    def _add_up_not_finite(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = next(iter(self.of_task.values())).device
            counts = torch.tensor(list(self.not_finite.values()), device=device)  # type: ignore
            torch.distributed.all_reduce(counts)
            self.not_finite = dict(zip(self.not_finite, counts.tolist(), strict=True))


def _count(
    prediction: NDArray[np.float32], truths: NDArray[np.bool_], protocol: BoundaryProtocol
) -> Indices:
    return count_boundaries(prediction, truths, protocol).row
