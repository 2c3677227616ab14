"""Label maps as pictures: with a palette, over a photograph, and what the colours mean."""

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from foveal.data.masks import IGNORED, LabelMap

IGNORED_COLOR = (224, 224, 192)  # Pascal VOC's
OPACITY = 0.6


def palette_picture(labels: LabelMap, colors: NDArray[np.uint8]) -> Image.Image:
    """Return a label map as a palette picture: its values are the labels, its colours the classes'.

    Args:
        labels: uint8 [H, W], class indices and 255.
        colors: of the classes, uint8 [K, 3].
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = colors
    palette[IGNORED] = IGNORED_COLOR
    picture = Image.fromarray(labels, "L")
    picture.putpalette(palette.tobytes())  # makes it mode P, the values stay
    return picture


def overlay(image: Image.Image, labels: LabelMap, colors: NDArray[np.uint8]) -> Image.Image:
    """Return a picture tinted by what its pixels show.

    What is ignored becomes pale; a black class, VOC's background, leaves the picture as it is.

    Args:
        image: RGB, W x H.
        labels: uint8 [H, W], class indices and 255.
        colors: of the classes, uint8 [K, 3].
    """
    pixels = np.asarray(image, np.float32)
    tint = np.asarray(palette_picture(labels, colors).convert("RGB"), np.float32)
    mixed = (1 - OPACITY) * pixels + OPACITY * tint
    mixed = np.where(tint.any(-1, keepdims=True), mixed, pixels)
    return Image.fromarray(mixed.round().astype(np.uint8), "RGB")


def legend(names: Sequence[str], colors: NDArray[np.uint8]) -> list[Patch]:
    """Return what a matplotlib legend shows: each class's name beside its colour."""
    return [
        Patch(facecolor=tuple(color / 255), edgecolor="#5b6673", linewidth=0.5, label=name)
        for name, color in zip(names, colors, strict=True)
    ]
