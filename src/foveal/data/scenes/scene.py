"""Scenes and their labels, drawn when they are asked for."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from foveal.data.scenes import labels
from foveal.data.scenes.details import DETAILS
from foveal.data.scenes.domains import DOMAINS
from foveal.data.scenes.exact import Floats, ramp
from foveal.data.scenes.ground import draw_ground
from foveal.data.scenes.lighting import cast_shadow, light
from foveal.data.scenes.painting import paint_item
from foveal.data.scenes.placing import Placement, place
from foveal.data.scenes.plan import CLASSES, SPLITS, plan, scene_draws
from foveal.names import unknown

VERSION = 1
"""Version of the generator: the same version, seed, split and index make the same bytes."""

SIDES = 96, 160
"""Sides of the pictures are drawn from this range, both ends included, unless a size is given."""

_SMALLEST_SIZE, _LARGEST_SIZE = 64, 512
_SIZE, _PLACE, _GROUND, _LIGHT, _DOMAIN, _ITEM = range(6)  # purposes of a scene's random numbers


class Scene:
    """One picture with all its labels; what is expensive is computed when first asked for.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        index: place in the split.
        domain: ``clean``, ``sketch``, ``night`` or ``noisy``.
        seed: of the whole set.
        height: H, pixels.
        width: W, pixels.
        item_fine: fine class of each item, int64 [N], the largest first.
    """

    def __init__(self, split: str, index: int, domain: str, seed: int, size: int | None) -> None:
        self.split, self.index, self.domain, self.seed = split, index, domain, seed
        scenes = plan(split, seed)
        self.item_fine: NDArray[np.int64] = scenes.fine[index, : scenes.count[index]]
        draws = scene_draws(split, seed, index, _SIZE)
        low, high = SIDES
        self.height = size or low + draws.integer(high - low + 1)
        self.width = size or low + draws.integer(high - low + 1)

    def __repr__(self) -> str:
        return f"<scene {scene_name(self.split, self.domain)}[{self.index}]>"

    @property
    def fine(self) -> int:
        """Fine class of the largest item, 0 to 99: an index into ``FINE_CLASSES``."""
        return int(self.item_fine[0])

    @property
    def category(self) -> int:
        """Class of the largest item, 0 to 9: an index into ``CLASSES``."""
        return self.fine // len(DETAILS)

    @property
    def item_categories(self) -> NDArray[np.int64]:
        """Class of each item, int64 [N], the largest first."""
        return self.item_fine // len(DETAILS)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which classes the scene shows, bool [10]."""
        shown = np.zeros(len(CLASSES), bool)
        shown[self.item_categories] = True
        return shown

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """The picture in its domain, RGB, uint8 [H, W, 3]."""
        return self._in_domain(self.domain)

    @property
    def instances(self) -> NDArray[np.uint8]:
        """Which item is visible, uint8 [H, W]: 0 the ground, 1 to N the items, 1 the largest."""
        return self._placement.instances

    @cached_property
    def semantic(self) -> NDArray[np.uint8]:
        """Which class is visible, uint8 [H, W]: 0 the ground, 1 to 10 the class plus one."""
        by_item = np.zeros(len(self.item_fine) + 1, np.uint8)
        by_item[1:] = self.item_categories + 1
        return by_item[self.instances]

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """Tight boxes of what is visible, float32 [N, 4]: left, top, right, bottom, in pixels."""
        return labels.boxes(self.instances, len(self.item_fine))

    @cached_property
    def saliency(self) -> NDArray[np.uint8]:
        """The items that stand out, uint8 [H, W] of 0 and 1; the same in all domains.

        The largest item always does; another if at least 1 % of the picture and 15 % of the
        largest is visible and its mean colour in the clean picture differs enough from the ground
        around it.
        """
        clean = self.image if self.domain == "clean" else self._in_domain("clean")
        return labels.saliency(self.instances, clean, self.boxes)

    @cached_property
    def boundaries(self) -> NDArray[np.uint8]:
        """Outlines of the visible items, one pixel wide, in the nearer item; uint8 [H, W]."""
        return labels.boundaries(self.instances, self._placement.order)

    @cached_property
    def skeleton(self) -> NDArray[np.uint8]:
        """Middle lines of the visible items, uint8 [H, W] of 0 and 1."""
        return labels.skeleton(self.instances, self.boxes)

    @cached_property
    def _placement(self) -> Placement:
        draws = scene_draws(self.split, self.seed, self.index, _PLACE)
        fine = self.item_fine.tolist()
        return place(draws, self.split, fine, self.height, self.width)

    @cached_property
    def _canvas(self) -> Floats:
        """The lit scene before any domain, [3, H, W], values about [0, 1]."""
        draws = scene_draws(self.split, self.seed, self.index, _GROUND)
        canvas, middle = draw_ground(draws, self.height, self.width)
        for k in self._placement.order:
            item = self._placement.items[k]
            draws = scene_draws(self.split, self.seed, self.index, _ITEM + k)
            colours = paint_item(draws, item, middle, main=k == 0)
            window, part = item.windows(self.height, self.width)
            cover = np.zeros((self.height, self.width), np.uint8)
            cover[window] = item.alpha[part] * 255
            reach = 1 + 0.08 * max(item.size) * draws.number(0.3, 1)
            cast_shadow(draws, canvas, cover, reach)
            target = canvas[:, window[0], window[1]]
            target += item.alpha[part] * (colours[:, part[0], part[1]] - target)
        light(scene_draws(self.split, self.seed, self.index, _LIGHT), canvas)
        return canvas

    def _in_domain(self, domain: str) -> NDArray[np.uint8]:
        draws = scene_draws(self.split, self.seed, self.index, _DOMAIN)
        canvas = DOMAINS[domain](draws, self._canvas, self.instances)
        levels = (ramp(canvas) * 255 + 0.5).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(1, 2, 0))


class Scenes(Sequence[Scene]):
    """The scenes of a split; each is made when it is asked for and depends on nothing else.

    Args:
        split: ``train`` (6000 scenes), ``val`` (600) or ``test`` (1200). Items of ``test`` come
            from Fashion-MNIST's test part; ``train`` and ``val`` share none.
        domain: ``clean``, ``sketch``, ``night`` or ``noisy``; labels are the same in all.
        seed: of the whole set, from 0 on.
        size: side of the pictures, 64 to 512 pixels; None: each side drawn from 96 to 160.

    Raises:
        ValueError: an unknown split or domain, or a seed or size out of range.

    Example:
        >>> scenes = Scenes("val", size=128)
        >>> len(scenes), scenes[3].image.shape
        (600, (128, 128, 3))
    """

    def __init__(
        self, split: str = "train", *, domain: str = "clean", seed: int = 0, size: int | None = None
    ) -> None:
        if split not in SPLITS:
            raise ValueError(unknown("split", split, SPLITS))
        if domain not in DOMAINS:
            raise ValueError(unknown("domain", domain, DOMAINS))
        if seed < 0:
            raise ValueError(f"the seed of scenes must be 0 or more, not {seed}")
        if size is not None and not _SMALLEST_SIZE <= size <= _LARGEST_SIZE:
            raise ValueError(
                f"scenes are drawn {_SMALLEST_SIZE} to {_LARGEST_SIZE} pixels wide, not {size}"
            )
        self.split, self.domain, self.seed, self.size = split, domain, seed, size

    def __len__(self) -> int:
        """Return the number of scenes."""
        return SPLITS[self.split]

    def __getitem__(self, index: int) -> Scene:  # type: ignore[override]
        """Return a scene; raises IndexError where there is none."""
        try:
            place = range(len(self))[index]
        except IndexError:
            raise IndexError(f"there is no scene {index} among {len(self)}") from None
        return Scene(self.split, place, self.domain, self.seed, self.size)

    def __iter__(self) -> Iterator[Scene]:
        """Yield all scenes."""
        return (self[index] for index in range(len(self)))

    @property
    def fine(self) -> NDArray[np.int64]:
        """Fine class of the largest item of each scene, int64 [N]; nothing is drawn."""
        return plan(self.split, self.seed).fine[:, 0]

    @property
    def categories(self) -> NDArray[np.int64]:
        """Class of the largest item of each scene, int64 [N]; nothing is drawn."""
        return self.fine // len(DETAILS)

    @property
    def present(self) -> NDArray[np.float32]:
        """Which classes each scene shows, float32 [N, 10] of 0 and 1; nothing is drawn."""
        scenes = plan(self.split, self.seed)
        return scenes.present(scenes.fine // len(DETAILS), len(CLASSES))


def scene_name(split: str, domain: str) -> str:
    """Return what a split of a domain is called in messages."""
    return f"scenes-v{VERSION}-{domain}-{split}"
