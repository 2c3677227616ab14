"""From a picture and its maps to what the network sees and learns, changed together.

Randomness comes from torch's global generator; ``data/loading.py`` seeds it for each sample.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foveal.config import DenseAugmentConfig
from foveal.data.maps import FloatMap
from foveal.data.transforms import Preprocess, with_channels

NO_LABEL = -1.0
"""Value of a target where there is nothing to learn: outside of a picture, or without a map."""

_LINES = ("edge", "skeleton")
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Floats = NDArray[np.float64]


class MapTrainTransform:
    """Scale, rotation, mirror and crop of a picture with its maps, then normalisation.

    A crop that is larger than the picture lies so that it holds all of it, at a random place; what
    is outside has the mean colour and no label. So pictures of any sizes form batches.

    Saliency maps are interpolated as the picture is. Lines, the maps of edges and skeletons, are
    one pixel wide, and would fade or break: each pixel of a line goes, with its value, to the
    pixel or pixels that it falls on, and where several meet the largest value stays. So a
    connected line stays connected at any scale and angle, values are never mixed (a share of
    annotators stays one of the shares there were), and a line gets as much wider as the picture
    gets larger, but not thinner than a pixel.

    Args:
        preprocess: what the network wants to see; ``image_size`` is the side of the crop.
        augment: which changes, and how strong.
        tasks: those that a target is to have.

    Shape:
        input: a PIL image and task → float32 [H, W]; output: float32 [C, image_size, image_size]
        and task → float32 [1, image_size, image_size], :data:`NO_LABEL` outside of the picture and
        where it has no map.
    """

    def __init__(
        self, preprocess: Preprocess, augment: DenseAugmentConfig, tasks: Sequence[str]
    ) -> None:
        self.preprocess, self.augment, self.tasks = preprocess, augment, tuple(tasks)

    def __call__(
        self, image: Image.Image, maps: Mapping[str, FloatMap]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return one augmented sample; draws from torch's global generator."""
        placing = _draw(image.size, self.preprocess.image_size, self.augment)
        picture = with_channels(image, self.preprocess.channels)
        colour = self.preprocess.fill
        fill = tuple(colour) if len(colour) > 1 else colour[0]
        mode = _RESAMPLING[self.preprocess.interpolation]
        x = self.preprocess.normalize(placing.resample(picture, mode, fill))
        inside = placing.inside()
        moved = {}
        for task, values in maps.items():
            if task in _LINES:
                values = placing.move_lines(values)
            else:
                stored = Image.fromarray(values, mode="F")
                values = np.asarray(placing.resample(stored, Image.Resampling.BILINEAR, 0))
            moved[task] = np.where(inside, values, np.float32(NO_LABEL))
        return x, _targets(moved, self.tasks, inside.shape)


@dataclass(frozen=True)
class _Placing:
    """How a picture lies in the square: scaled, turned about its middle, mirrored, shifted.

    Attributes:
        size: (width, height) of the picture.
        scaled: (width, height) that it is scaled to.
        angle: counter-clockwise, radians.
        mirrored: whether left and right change places.
        corner: place of the square's top left corner in the changed picture, (x, y), pixels.
        side: of the square, pixels.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    angle: float
    mirrored: bool
    corner: tuple[int, int]
    side: int

    def matrix(self) -> Floats:
        """Return where points of the scaled picture come to lie in the square, [2, 3].

        Points are (x, y, 1), a pixel's middle at half its side.
        """
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[cos, sin], [-sin, cos]])  # y points down
        if self.mirrored:
            turn = np.diag([-1.0, 1.0]) @ turn
        middle = np.array(self.scaled) / 2
        shift = middle - turn @ middle - self.corner
        return np.column_stack([turn, shift])

    def inverse(self) -> Floats:
        """Return where points of the square come from in the scaled picture, [2, 3]."""
        matrix = self.matrix()
        back = np.linalg.inv(matrix[:, :2])
        return np.column_stack([back, -back @ matrix[:, 2]])

    def resample(
        self, image: Image.Image, mode: Image.Resampling, fill: int | tuple[int, ...]
    ) -> Image.Image:
        """Return the square's part of a changed picture, ``fill`` outside of it."""
        if self.scaled != self.size:
            image = image.resize(self.scaled, mode)
        return image.transform(
            (self.side, self.side),
            Image.Transform.AFFINE,
            tuple(self.inverse().ravel()),
            Image.Resampling.BILINEAR,
            fillcolor=fill,
        )

    def inside(self) -> NDArray[np.bool_]:
        """Return which pixels of the square the picture covers with their middles, bool [S, S]."""
        back = self.inverse()
        along = np.arange(self.side) + 0.5
        covered = np.ones((self.side, self.side), bool)
        for (of_x, of_y, shift), length in zip(back, self.scaled, strict=True):
            place = of_x * along[None] + (of_y * along[:, None] + shift)
            covered &= (place >= 0) & (place < length)
        return covered

    def move_lines(self, values: FloatMap) -> FloatMap:
        """Return a map of lines in the square, float32 [S, S], 0 where there is no line."""
        moved = np.zeros((self.side, self.side), np.float32)
        rows, columns = np.nonzero(values)
        matrix = self.matrix()
        scale = np.array(self.scaled) / self.size
        whole = matrix[:, :2] * scale
        # A pixel is cut into parts whose images lie at most one pixel apart along either axis,
        # those of neighbours too: so what was connected falls on pixels that are neighbours.
        parts = max(1, math.ceil(np.abs(whole).sum(1).max() - 1e-9))
        middles = (np.arange(parts) + 0.5) / parts
        for down in middles:
            for right in middles:
                points = whole @ np.stack([columns + right, rows + down]) + matrix[:, 2:]
                x, y = np.floor(points).astype(np.int64)
                there = (x >= 0) & (x < self.side) & (y >= 0) & (y < self.side)
                np.maximum.at(moved, (y[there], x[there]), values[rows, columns][there])
        return moved


def _draw(size: tuple[int, int], side: int, augment: DenseAugmentConfig) -> _Placing:
    """Draw a placing from torch's global generator; always the same number of draws."""
    scale, turned, angle, mirror, left, top = torch.rand(6, dtype=torch.float64).tolist()
    factor = augment.min_scale + (augment.max_scale - augment.min_scale) * scale
    width, height = (max(1, round(factor * length)) for length in size)
    degrees = augment.rotate * (2 * angle - 1) if turned < 0.5 else 0.0
    corner = [
        min(0, length - side) + math.floor(draw * (abs(length - side) + 1))
        for draw, length in ((left, width), (top, height))
    ]
    return _Placing(
        size=size,
        scaled=(width, height),
        angle=math.radians(degrees),
        mirrored=mirror < augment.hflip,
        corner=(corner[0], corner[1]),
        side=side,
    )


def _targets(
    maps: Mapping[str, FloatMap], tasks: Sequence[str], shape: tuple[int, ...]
) -> dict[str, Tensor]:
    """Return task → float32 [1, H, W], without label where there is no map."""
    return {
        task: torch.from_numpy(maps[task].copy())[None]
        if task in maps
        else torch.full((1, *shape), NO_LABEL)
        for task in tasks
    }
