"""Colours for class indices: the palette of Pascal VOC's masks, and pictures under such colours."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def voc_palette(count: int, first: int = 0) -> NDArray[np.uint8]:
    """Return VOC's colours of the indices from ``first`` on, uint8 [count, 3].

    The bits of an index, lowest first, go in turn to red, green and blue, each round to the next
    lower bit of the channel: 0 is black, 1 (128, 0, 0), 2 (0, 128, 0). Any number of classes up to
    256 gets colours that differ. Sets without a background class begin at 1 and so have no black.
    """
    indices = np.arange(first, first + count)
    colors = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((indices >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return colors


def overlay(
    image: Image.Image, labels: NDArray[np.integer], colors: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return a picture with the colours of its classes laid over it, uint8 [H, W, 3].

    Args:
        image: RGB.
        labels: class indices [H, W]; what is no index, such as 255, becomes pale.
        colors: of the classes, uint8 [K, 3].
    """
    table = np.full((256, 3), 255, np.uint16)
    table[: len(colors)] = colors
    mixed: NDArray[np.uint16] = (np.asarray(image, np.uint16) * 2 + table[labels] * 3) // 5
    return mixed.astype(np.uint8)
