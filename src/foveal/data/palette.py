"""The colours of class indices in Pascal VOC's masks."""

import numpy as np
from numpy.typing import NDArray


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
