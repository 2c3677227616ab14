"""Maps of saliency, edges and skeletons as pictures: over the photograph, and beside it."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import adaptive_max_pool2d, max_pool2d

from foveal.data.maps import FloatMap
from foveal.metrics.non_maximum_suppression import suppress_non_maxima

MAP_COLORS = {"saliency": (255, 150, 20), "edge": (0, 220, 255), "skeleton": (255, 40, 190)}
"""In which colour each task is drawn, RGB."""

_TINT = 0.5  # opacity where saliency is certain
# Side of a picture, pixels, from which lines are three pixels wide, and even wider, so that they
# are seen.
_THICKER_FROM, _LONGEST_DRAWN = 200, 1000
_BOX = (400, 300)  # width and height that a picture beside its maps is fitted into, pixels
_TITLE, _GAP, _NARROWEST = 13, 8, 64  # size of letters, between pictures, for a title
_INK, _PAPER = (31, 41, 51), (226, 229, 233)  # the paper differs from white maps


def map_overlay(image: Image.Image, maps: Mapping[str, FloatMap]) -> Image.Image:
    """Return a picture tinted where it is salient, with edges and skeletons as lines on it.

    Of a line's map the crests are drawn, the more opaque the more certain they are.

    Args:
        image: RGB, W x H.
        maps: task → float32 [H, W] in [0, 1], any of the three tasks.
    """
    pixels = np.asarray(image, np.float32)
    for task, color in MAP_COLORS.items():
        if task in maps:
            opacity = _TINT * maps[task] if task == "saliency" else _lines(maps[task])
            pixels = pixels + opacity[..., None] * (np.array(color, np.float32) - pixels)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8), "RGB")


def map_panels(image: Image.Image, maps: Mapping[str, FloatMap]) -> Image.Image:
    """Return a picture beside its maps, bright on black, all of one size with small titles.

    Args:
        image: RGB, W x H.
        maps: task → float32 [H, W] in [0, 1], from left to right.
    """
    scale = min(_BOX[0] / image.width, _BOX[1] / image.height)
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    shown = {"picture": image}
    for task, values in maps.items():
        shown[task] = Image.fromarray(np.rint(255 * values).astype(np.uint8)).convert("RGB")
    step = max(size[0], _NARROWEST) + _GAP
    top = _TITLE + 2 * _GAP
    sheet = Image.new("RGB", (step * len(shown) + _GAP, top + size[1] + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TITLE)
    for column, (title, picture) in enumerate(shown.items()):
        left = _GAP + column * step
        draw.text((left, _GAP), title, _INK, font)
        sheet.paste(picture.resize(size, Image.Resampling.BICUBIC), (left, top))
    return sheet


def _lines(values: FloatMap) -> NDArray[np.float32]:
    """Return how opaque the lines of a map are, float32 [H, W]."""
    longest = max(values.shape)
    scale = min(1, _LONGEST_DRAWN / longest)
    height, width = (max(1, round(scale * side)) for side in values.shape)
    small = adaptive_max_pool2d(torch.tensor(values)[None], (height, width))[0].numpy()
    lines = suppress_non_maxima(small, border=0).astype(np.float32)
    if longest >= _THICKER_FROM:
        lines = max_pool2d(torch.from_numpy(lines)[None], 3, 1, 1)[0].numpy()
    if scale == 1:
        return lines
    drawn = Image.fromarray(lines).resize(values.shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(drawn)
