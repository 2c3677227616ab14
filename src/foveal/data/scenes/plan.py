"""What the scenes of a split show: the classes of their items, all at once and without drawing."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from foveal.data.idx import FASHION_CLASSES
from foveal.data.scenes.details import DETAILS
from foveal.data.scenes.exact import Draws

CLASSES = FASHION_CLASSES
FINE_CLASSES = tuple(f"{name}, {detail}" for name in CLASSES for detail in DETAILS)
"""Class · 10 + detail is the fine class."""

SPLITS = {"train": 6000, "val": 600, "test": 1200}
"""Number of scenes of each split; whole multiples of 100, so that all fine classes are equal."""

MOST_ITEMS = 4
_MORE = (0.35, 0.65, 0.85)  # below these: one, two, three items

_PLAN, _SCENE = 0, 1  # first part of the key of a stream


@dataclass(frozen=True)
class Plan:
    """What the N scenes of a split show.

    Attributes:
        count: number of items, int64 [N], 1 to 4.
        fine: fine class of each item, int64 [N, 4], the largest first; -1 where there is none.
    """

    count: NDArray[np.int64]
    fine: NDArray[np.int64]

    def present(self, classes: NDArray[np.int64], number: int) -> NDArray[np.float32]:
        """Return which of ``number`` classes each scene shows, float32 [N, number] of 0 and 1.

        Args:
            classes: class of each item, int64 [N, 4], -1 where there is none.
            number: of classes.
        """
        shown = np.zeros((len(classes), number + 1), np.float32)
        shown[np.arange(len(classes))[:, None], classes] = 1
        return shown[:, :number]


@lru_cache(maxsize=16)
def plan(split: str, seed: int) -> Plan:
    """Return what the scenes of a split show; every fine class is the main one equally often."""
    size = SPLITS[split]
    draws = Draws(_PLAN, seed, list(SPLITS).index(split))
    fine = np.full((size, MOST_ITEMS), -1, np.int64)
    fine[np.argsort(draws.words(size), kind="stable"), 0] = np.arange(size) % len(FINE_CLASSES)
    # The upper half of a word times a number below 2**32, halved again: no remainder, no bias.
    others = (draws.words(size, MOST_ITEMS - 1) >> 32) * len(FINE_CLASSES) >> 32
    share = (draws.words(size) >> 11).astype(np.float64) * 2.0**-53
    count = 1 + (share[:, None] >= np.array(_MORE)).sum(axis=1)
    there = np.arange(1, MOST_ITEMS) < count[:, None]
    fine[:, 1:] = np.where(there, others.astype(np.int64), -1)
    for array in (fine, count):
        array.setflags(write=False)
    return Plan(count, fine)


def scene_draws(split: str, seed: int, index: int, purpose: int) -> Draws:
    """Return the random numbers of one scene for one purpose, a small whole number."""
    return Draws(_SCENE, seed, list(SPLITS).index(split), index, purpose)
