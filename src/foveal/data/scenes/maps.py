"""Scenes as the pictures of a dense run: saliency, boundaries, skeletons."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.config import DENSE_TASKS
from foveal.data.maps import ChosenMaps, FloatMap, FoundMaps, MappedPictures, Truth
from foveal.data.scenes import photographs
from foveal.data.scenes.drawn import DRAWN
from foveal.data.scenes.plan import SPLITS
from foveal.data.scenes.reading import USUAL_SIZE
from foveal.data.scenes.scene import VERSION, Scene, Scenes, scene_name

_SCORED = {"val": 50, "test": 200}  # of 600 and 1,200: matching lines to drawn ones takes long


class SceneMaps:
    """The pictures of one split with maps; each is drawn once, as far as the cache goes.

    Args:
        scenes: what is drawn.
        task: ``saliency``, ``edge`` or ``skeleton``; all three are drawn together.
    """

    def __init__(self, scenes: Scenes, task: str) -> None:
        self.scenes, self.task = scenes, task

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.scenes)

    def load(self, index: int) -> tuple[Image.Image, FloatMap]:
        """Return a picture as RGB, and its map of 0 and 1."""
        return Image.fromarray(self._pixels(index)[..., :3]), self.truth(index).map

    def decode(self, index: int) -> tuple[Image.Image, Truth, str]:
        """Return a picture as RGB, what is known of its pixels, and its mode."""
        return Image.fromarray(self._pixels(index)[..., :3]), self.truth(index), "RGB"

    def truth(self, index: int) -> Truth:
        """Return what is known of a picture's pixels."""
        bits = self._pixels(index)[..., 3] >> DENSE_TASKS.index(self.task)
        return Truth.of_one((bits & 1).astype(np.float32), "1")

    def annotations(self, index: int) -> list[NDArray[np.bool_]]:
        """Return the map as bool [H, W]."""
        return list(self.truth(index).annotations)

    def probe(self, index: int) -> tuple[int, int]:
        """Return (width, height) of the map; a scene cannot be damaged."""
        return self.size(index)

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) in pixels without drawing."""
        scene = self.scenes[index]
        return scene.width, scene.height

    def name(self, index: int) -> str:
        """Return the version, domain, split and index, such as ``scenes-v1-clean-train[17]``."""
        return f"{scene_name(self.scenes.split, self.scenes.domain)}[{range(len(self))[index]}]"

    def map_name(self, index: int) -> str:
        """Return the same."""
        return self.name(index)

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        """Return RGB and, as bits of one byte, the maps in the order of tasks; [H, W, 4]."""
        return DRAWN.get(self.scenes, index, "image and maps", _draw)


def read_maps(task: str, domain: str = "clean") -> FoundMaps:
    """Return the scenes of all splits with the maps of a task; nothing is drawn yet.

    Args:
        task: ``saliency``, ``edge`` or ``skeleton``.
        domain: one of ``DOMAINS``.

    Raises:
        ValueError: a file of the photographs is missing or damaged; the message has its path.
    """
    photographs.rows("train", 0)  # reads the files: better found damaged now than in a worker
    parts: dict[str, MappedPictures] = {}
    for split in SPLITS:
        scenes = SceneMaps(Scenes(split, domain=domain), task)
        few = min(_SCORED.get(split, len(scenes)), len(scenes))
        parts[split] = ChosenMaps(scenes, np.arange(few)) if few < len(scenes) else scenes
    return FoundMaps(
        root="built-in scenes",
        parts=parts,
        origins={split: _origin(parts[split], split, domain) for split in SPLITS},
        image_size=USUAL_SIZE,
    )


def _origin(pictures: MappedPictures, split: str, domain: str) -> str:
    whole = f"built-in scenes, version {VERSION}, {domain}"
    every = len(Scenes(split, domain=domain))
    return f"{len(pictures)} of {every:,d} {whole}" if len(pictures) < every else whole


def _draw(scene: Scene) -> NDArray[np.uint8]:
    maps = {"saliency": scene.saliency, "edge": scene.boundaries, "skeleton": scene.skeleton}
    bits = np.zeros((scene.height, scene.width), np.uint8)
    for place, task in enumerate(DENSE_TASKS):
        bits |= (maps[task] > 0).astype(np.uint8) << place
    return np.dstack([scene.image, bits])
