"""Scenes as the pictures of a classification run."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.data.parts import Found
from foveal.data.scenes import photographs
from foveal.data.scenes.details import DETAILS
from foveal.data.scenes.plan import CLASSES, FINE_CLASSES, SPLITS, plan
from foveal.data.scenes.scene import VERSION, Scenes, scene_name

LABELS = ("coarse", "fine")

CACHE_BYTES = 256 * 2**20
"""Drawn pictures that one process keeps for a split; those drawn first stay."""

USUAL_SIZE = 128
"""Side that networks see unless told otherwise, pixels."""


class Drawn:
    """What was drawn of some scenes, kept in one process as far as there is room.

    Args:
        cache_bytes: room for all; those drawn first stay.
    """

    def __init__(self, cache_bytes: int) -> None:
        self.cache_bytes = cache_bytes
        self._arrays: dict[int, NDArray[np.uint8]] = {}
        self._kept = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave all behind: another process draws its own."""
        return {"cache_bytes": self.cache_bytes, "_arrays": {}, "_kept": 0}

    def get(self, index: int, draw: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return what was drawn of a scene, or draw it."""
        pixels = self._arrays.get(index)
        if pixels is None:
            pixels = draw()
            if self._kept + pixels.nbytes <= self.cache_bytes:
                self._arrays[index] = pixels
                self._kept += pixels.nbytes
        return pixels


class ScenePictures:
    """The pictures of one split; each is drawn once in a process, as far as the cache goes.

    Args:
        scenes: what is drawn.
        targets: int64 [N], or float32 [N, K].
        cache_bytes: drawn pictures that are kept.
    """

    def __init__(
        self, scenes: Scenes, targets: NDArray[Any], cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.scenes, self.targets = scenes, targets
        self._drawn = Drawn(cache_bytes)

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.scenes)

    def load(self, index: int) -> Image.Image:
        """Return a picture as RGB."""
        return Image.fromarray(self._drawn.get(index, lambda: self.scenes[index].image))

    def decode(self, index: int) -> tuple[Image.Image, str]:
        """Return a picture as RGB, and its mode."""
        return self.load(index), "RGB"

    def probe(self, index: int) -> None:
        """Do nothing: a scene cannot be damaged."""

    def name(self, index: int) -> str:
        """Return the version, domain, split and index, such as ``scenes-v1-clean-train[17]``."""
        return f"{scene_name(self.scenes.split, self.scenes.domain)}[{range(len(self))[index]}]"


def read(labels: str = "coarse", domain: str = "clean", multi_label: bool = False) -> Found:
    """Return the scenes of all splits with their classes; nothing is drawn yet.

    Args:
        labels: ``coarse``, ten classes, or ``fine``, a hundred.
        domain: one of ``DOMAINS``.
        multi_label: whether targets tell the classes of all items instead of the largest one's.

    Raises:
        ValueError: a file of the photographs is missing or damaged; the message has its path.
    """
    photographs.rows("train", 0)  # reads the files: better found damaged now than in a worker
    classes = CLASSES if labels == "coarse" else FINE_CLASSES
    parts = {}
    for split in SPLITS:
        shown = plan(split, 0)
        items = shown.fine // len(DETAILS) if labels == "coarse" else shown.fine
        targets = shown.present(items, len(classes)) if multi_label else items[:, 0].copy()
        parts[split] = ScenePictures(Scenes(split, domain=domain), targets)
    return Found(
        root="built-in scenes",
        classes=classes,
        parts=parts,
        origins=dict.fromkeys(SPLITS, f"built-in scenes, version {VERSION}, {domain}"),
        image_size=USUAL_SIZE,
        multi_label=multi_label,
    )
