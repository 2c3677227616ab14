"""A contact sheet of pictures with masks: each picture, and beside it its classes in colours."""

import math

import numpy as np
from matplotlib.figure import Figure as Canvas

from foveal.data.contact_sheet import CELL, COLUMNS, INK, draw_indices
from foveal.data.label_pictures import legend, overlay
from foveal.data.segmentation import IGNORED, SegmentationData

_MOST_IN_ROW = COLUMNS // 2


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
    samples = [pictures.load(index) for index in draw_indices(data, split, count, seed)]
    rows = math.ceil(len(samples) / _MOST_IN_ROW)
    in_row = math.ceil(len(samples) / rows)
    shown = sorted({int(k) for _, labels in samples for k in np.unique(labels)} - {IGNORED})
    heights = [
        max(min(image.height / image.width, 1.5) for image, _ in samples[start : start + in_row])
        for start in range(0, len(samples), in_row)
    ]
    in_line = 2 * in_row  # names of classes in a line of the legend
    lines = math.ceil(len(shown) / in_line)
    canvas = Canvas(
        figsize=(2 * in_row * CELL, CELL * sum(heights) + 0.2 * lines + 0.2), layout="constrained"
    )
    cells = canvas.subplots(rows, 2 * in_row, squeeze=False, height_ratios=heights)
    for axes in cells.flat:
        axes.axis("off")
    for place, (image, labels) in enumerate(samples):
        row, column = divmod(place, in_row)
        cells[row, 2 * column].imshow(image)
        cells[row, 2 * column + 1].imshow(overlay(image, labels, data.colors))
    canvas.legend(
        handles=legend([data.classes[k] for k in shown], data.colors[shown]),
        loc="outside lower center",
        ncols=max(1, min(len(shown), in_line)),
        fontsize=7,
        labelcolor=INK,
        frameon=False,
    )
    return canvas
