"""What this process has drawn of the scenes, kept as far as there is room."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foveal.data.scenes.scene import Scene, Scenes

CACHE_BYTES = 512 * 2**20  # all scenes of one domain at the usual sizes, with one label map


class DrawnScenes:
    """Arrays that were drawn of scenes; those drawn first stay.

    Args:
        capacity: bytes.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.bytes = capacity, 0
        self._arrays: dict[tuple[object, ...], NDArray[np.uint8]] = {}

    def get(
        self, scenes: Scenes, index: int, what: str, draw: Callable[[Scene], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """Return an array of a scene, drawn only if it is not kept.

        Args:
            scenes: the scenes.
            index: which of them.
            what: the array's name; the same name, the same array.
            draw: makes it.
        """
        place = range(len(scenes))[index]
        key = what, scenes.split, scenes.domain, scenes.seed, scenes.size, place
        if key in self._arrays:
            return self._arrays[key]
        array = draw(scenes[index])
        if self.bytes + array.nbytes <= self.capacity:
            self._arrays[key] = array
            self.bytes += array.nbytes
        return array


DRAWN = DrawnScenes(CACHE_BYTES)
