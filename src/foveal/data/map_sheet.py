"""A contact sheet of pictures with maps: each picture, and beside it its map."""

import numpy as np
from matplotlib.figure import Figure as Canvas

from foveal.data.contact_sheet import CELL, COLUMNS, cell, draw_indices
from foveal.data.dense import DenseData

_IN_ROW = COLUMNS // 2


def map_sheet(data: DenseData, split: str = "train", *, count: int = 24, seed: int = 0) -> Canvas:
    """Draw some pictures of a split, each beside its map, black 0 and white 1.

    Args:
        data: what :func:`foveal.data.read_dense` returned.
        split: ``train``, ``val`` or ``test``.
        count: number of pictures, drawn without repetition.
        seed: of that draw.

    Raises:
        ValueError: the split has no pictures, or ``count`` is below 1.
        DamagedPictureError: a picture or map will not open, or they do not fit.
    """
    pictures = data.splits[split]
    chosen = draw_indices(data, split, count, seed)
    rows = -(-len(chosen) // _IN_ROW)
    height = rows * CELL + 0.2
    canvas = Canvas(figsize=(COLUMNS * CELL + 0.9, height))
    for place, index in enumerate(chosen):
        row, column = divmod(place, _IN_ROW)
        bottom = (height - 0.1 - (row + 1) * CELL) / height
        image, values = pictures.load(index)
        grey = np.rint(255 * values).astype(np.uint8)[..., None].repeat(3, -1)
        for side, pixels in enumerate((np.asarray(image), grey)):
            cell(canvas, 2 * column + side, bottom, CELL / height).imshow(pixels)
    return canvas
