"""Several sets with different labels as one, for networks that learn several tasks together."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.config import DENSE_TASKS
from foveal.data.maps import ChosenMaps, FloatMap, MappedPictures, Truth
from foveal.data.masks import SizesDifferError
from foveal.data.pictures import printable


class JointPictures:
    """The pictures of several sets, one set after the other, each with the maps that its set has.

    A set is pictures that have maps for the same tasks. A picture of a set with several is loaded
    once and has all of them, so that one pass of the network's trunk learns from all.

    Args:
        sets: of each set task → its pictures, the same in all tasks.

    Attributes:
        tasks: those that any set has maps for, in the usual order.
        sizes: number of pictures of each set.
        set_tasks: tasks of each set.

    Raises:
        ValueError: no set, a set without a task, or one whose tasks have different numbers of
            pictures.
    """

    def __init__(self, sets: Sequence[Mapping[str, MappedPictures]]) -> None:
        if not sets or not all(sets):
            raise ValueError("joint pictures need at least one set, and each set at least one task")
        self.sets = [{task: one[task] for task in DENSE_TASKS if task in one} for one in sets]
        for one in self.sets:
            if len({len(pictures) for pictures in one.values()}) > 1:
                counts = ", ".join(f"{task} {len(pictures)}" for task, pictures in one.items())
                raise ValueError(f"the tasks of a set must have the same pictures, not {counts}")
        self.set_tasks = tuple(tuple(one) for one in self.sets)
        self.tasks = tuple(t for t in DENSE_TASKS if any(t in one for one in self.sets))
        self.sizes = tuple(len(next(iter(one.values()))) for one in self.sets)
        self._ends = np.cumsum(self.sizes)

    def __len__(self) -> int:
        """Return the number of pictures of all sets."""
        return int(self._ends[-1])

    def load(self, index: int) -> tuple[Image.Image, dict[str, FloatMap]]:
        """Return a picture as RGB, and task → map, float32 [H, W], of the tasks that it has.

        Raises:
            DamagedPictureError: the picture or a map does not open, or they do not fit.
        """
        image, truths = self.decode(index)
        return image, {task: truth.map for task, truth in truths.items()}

    def decode(self, index: int) -> tuple[Image.Image, dict[str, Truth]]:
        """Return a picture as RGB, and task → all that is known of its pixels.

        Raises:
            DamagedPictureError: as :meth:`load`.
        """
        one, place = self._find(index)
        first, *others = one.items()
        image, truth, _ = first[1].decode(place)
        truths = {first[0]: truth}
        for task, pictures in others:
            truths[task] = pictures.truth(place)
        self._require_equal(index, {task: truth.size for task, truth in truths.items()})
        return image, truths

    def tasks_of(self, index: int) -> tuple[str, ...]:
        """Return the tasks that a picture has maps for."""
        return tuple(self._find(index)[0])

    def probe(self, index: int) -> None:
        """Look at a picture and its maps without decoding; raises :class:`DamagedPictureError`."""
        one, place = self._find(index)
        sizes = {task: pictures.probe(place) for task, pictures in one.items()}
        self._require_equal(index, sizes)

    def size(self, index: int) -> tuple[int, int]:
        """Return a picture's (width, height) in pixels without decoding."""
        pictures, place = self._first(index)
        return pictures.size(place)

    def name(self, index: int) -> str:
        """Return where a picture is."""
        pictures, place = self._first(index)
        return pictures.name(place)

    def map_name(self, index: int, task: str) -> str:
        """Return where a picture's map for a task is; empty where there is none."""
        one, place = self._find(index)
        return one[task].map_name(place) if task in one else ""

    def choose(self, indices: NDArray[np.int64]) -> "JointPictures":
        """Return some of the pictures; each set keeps its own, a set without any is left out."""
        sets = []
        starts = self._ends - self.sizes
        for one, start, end in zip(self.sets, starts, self._ends, strict=True):
            chosen = indices[(indices >= start) & (indices < end)] - start
            if len(chosen):
                sets.append({task: ChosenMaps(p, chosen) for task, p in one.items()})
        return JointPictures(sets)

    def _require_equal(self, index: int, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Raise SizesDifferError unless all maps of a picture have one size."""
        first, *others = sizes
        for task in others:
            if sizes[task] != sizes[first]:
                (width, height), (others_width, others_height) = sizes[task], sizes[first]
                raise SizesDifferError(
                    self.map_name(index, task),
                    f"{width} by {height} pixels, but {printable(self.map_name(index, first))} has "
                    f"{others_width} by {others_height}",
                )

    def _find(self, index: int) -> tuple[dict[str, MappedPictures], int]:
        number = range(len(self))[index]
        place = int(np.searchsorted(self._ends, number, side="right"))
        return self.sets[place], number - int(self._ends[place]) + self.sizes[place]

    def _first(self, index: int) -> tuple[MappedPictures, int]:
        one, place = self._find(index)
        return next(iter(one.values())), place


def join(pictures: Mapping[str, MappedPictures]) -> JointPictures:
    """Make one collection of one split's pictures for several tasks.

    Tasks whose pictures are the same, by name and order, become one set; all others are sets of
    their own. A task without pictures is left out.

    Args:
        pictures: task → its pictures.

    Raises:
        ValueError: no task has pictures.
    """
    sets: list[dict[str, MappedPictures]] = []
    keys: list[list[str]] = []
    for task in DENSE_TASKS:
        if task not in pictures or not len(pictures[task]):
            continue
        of_task = pictures[task]
        key = [os.path.abspath(of_task.name(index)) for index in range(len(of_task))]
        if key in keys:
            sets[keys.index(key)][task] = of_task
        else:
            sets.append({task: of_task})
            keys.append(key)
    return JointPictures(sets)
