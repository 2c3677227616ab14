"""Scenes as the pictures of a segmentation run."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.data.masks import FoundMasks, LabelMap
from foveal.data.palette import voc_palette
from foveal.data.scenes import photographs
from foveal.data.scenes.drawn import DRAWN
from foveal.data.scenes.plan import CLASSES, FINE_CLASSES, SPLITS
from foveal.data.scenes.reading import USUAL_SIZE
from foveal.data.scenes.scene import VERSION, Scene, Scenes, scene_name


class SceneMasks:
    """The pictures of one split with label maps; each is drawn once, as far as the cache goes.

    Label 0 is the ground, a class's label is its place in the class list plus one.

    Args:
        scenes: what is drawn.
        fine: whether labels tell an item's fine class.
    """

    def __init__(self, scenes: Scenes, *, fine: bool) -> None:
        self.scenes, self.fine = scenes, fine

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.scenes)

    def load(self, index: int) -> tuple[Image.Image, LabelMap]:
        """Return a picture as RGB, and its label map, uint8 [H, W]."""
        what = "image and fine labels" if self.fine else "image and labels"
        both = DRAWN.get(self.scenes, index, what, self._draw)
        return Image.fromarray(both[..., :3]), both[..., 3].copy()

    def decode(self, index: int) -> tuple[Image.Image, LabelMap, str, str]:
        """Return picture, label map, and their modes."""
        return *self.load(index), "RGB", "L"

    def labels(self, index: int) -> LabelMap:
        """Return a label map, uint8 [H, W]."""
        return self.load(index)[1]

    def probe(self, index: int) -> None:
        """Do nothing: a scene cannot be damaged."""

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) in pixels without drawing."""
        scene = self.scenes[index]
        return scene.width, scene.height

    def name(self, index: int) -> str:
        """Return the version, domain, split and index, such as ``scenes-v1-clean-train[17]``."""
        return f"{scene_name(self.scenes.split, self.scenes.domain)}[{range(len(self))[index]}]"

    def mask_name(self, index: int) -> str:
        """Return the same."""
        return self.name(index)

    def _draw(self, scene: Scene) -> NDArray[np.uint8]:
        """Return RGB and labels, uint8 [H, W, 4]."""
        labels = scene.semantic
        if self.fine:
            by_item = np.concatenate([[0], scene.item_fine + 1]).astype(np.uint8)
            labels = by_item[scene.instances]
        return np.dstack([scene.image, labels])


def read_masks(labels: str = "coarse", domain: str = "clean") -> FoundMasks:
    """Return the scenes of all splits with label maps; nothing is drawn yet.

    Args:
        labels: ``coarse``, the ground and ten classes, or ``fine``, the ground and a hundred.
        domain: one of ``DOMAINS``.

    Raises:
        ValueError: a file of the photographs is missing or damaged; the message has its path.
    """
    photographs.rows("train", 0)  # reads the files: better found damaged now than in a worker
    classes = ("ground", *(FINE_CLASSES if labels == "fine" else CLASSES))
    return FoundMasks(
        root="built-in scenes",
        classes=classes,
        colors=voc_palette(len(classes)),
        parts={s: SceneMasks(Scenes(s, domain=domain), fine=labels == "fine") for s in SPLITS},
        origins=dict.fromkeys(SPLITS, f"built-in scenes, version {VERSION}, {domain}"),
        image_size=USUAL_SIZE,
    )
