"""A contact sheet of pictures with masks: each picture, and beside it its classes in colours."""

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from foveal.data.contact_sheet import CELL, COLUMNS, INK, cell, draw_indices
from foveal.data.palette import overlay
from foveal.data.segmentation import IGNORED, SegmentationData

_IN_ROW = COLUMNS // 2


def mask_sheet(
    data: SegmentationData, split: str = "train", *, count: int = 24, seed: int = 0
) -> Canvas:
    """Draw some pictures of a split, each beside itself with its mask laid over.

    Below are the colours of the classes that are shown; what is ignored is pale.

    Args:
        data: what :func:`foveal.data.read_segmentation` returned.
        split: ``train``, ``val`` or ``test``.
        count: number of pictures, drawn without repetition.
        seed: of that draw.

    Raises:
        ValueError: the split has no pictures, or ``count`` is below 1.
        DamagedPictureError: a picture or mask will not open, or they do not fit.
    """
    pictures = data.splits[split]
    chosen = draw_indices(data, split, count, seed)
    rows = -(-len(chosen) // _IN_ROW)
    height = rows * CELL + 1.0
    canvas = Canvas(figsize=(COLUMNS * CELL + 0.9, height))
    shown = np.zeros(IGNORED + 1, bool)
    for place, index in enumerate(chosen):
        row, column = divmod(place, _IN_ROW)
        bottom = (height - 0.1 - (row + 1) * CELL) / height
        image, labels = pictures.load(index)
        shown[np.unique(labels)] = True
        for side, pixels in enumerate((np.asarray(image), overlay(image, labels, data.colors))):
            cell(canvas, 2 * column + side, bottom, CELL / height).imshow(pixels)
    present = np.flatnonzero(shown[:IGNORED])
    patches = [Patch(color=data.colors[k] / 255, label=data.classes[k]) for k in present]
    canvas.legend(
        handles=patches, loc="lower center", ncols=10, fontsize=7, labelcolor=INK, frameon=False
    )
    return canvas
