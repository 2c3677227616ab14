"""Labels that are computed from the true masks: boxes, saliency, boundaries, skeletons."""

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.uint8]

SALIENT_AREA, SALIENT_SHARE, SALIENT_CONTRAST = 0.01, 0.15, 28
"""Smallest shares of the picture and of the largest item; difference of mean colours, of 255."""


def boxes(instances: Map, count: int) -> NDArray[np.float32]:
    """Return the tight boxes of the visible items, float32 [N, 4]: left, top, right, bottom.

    Right and bottom are one more than the last pixel's column and row.
    """
    found = np.zeros((count, 4), np.float32)
    for k in range(count):
        seen = instances == k + 1
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        found[k] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return found


def saliency(instances: Map, image: Map, boxes: NDArray[np.float32]) -> Map:
    """Return the items that stand out, uint8 [H, W] of 0 and 1.

    The largest item always does. Another does if what is visible of it is at least 1 % of the
    picture and 15 % of the largest item, and if its mean colour in the clean picture differs by at
    least 28 of 255, averaged over the channels, from the ground around it: the pixels without item
    in its box, enlarged by a quarter to each side.

    Args:
        instances: uint8 [H, W], 1 the largest item.
        image: the clean picture, uint8 [H, W, 3].
        boxes: of the items, [N, 4].
    """
    areas = np.bincount(instances.ravel(), minlength=len(boxes) + 1)
    salient = np.zeros(len(boxes) + 1, np.uint8)
    salient[1] = 1
    least = max(SALIENT_AREA * instances.size, SALIENT_SHARE * int(areas[1]))
    for k in range(2, len(boxes) + 1):
        if areas[k] >= least:
            salient[k] = _contrast(instances, image, k, boxes[k - 1]) >= SALIENT_CONTRAST
    return salient[instances]


def _contrast(instances: Map, image: Map, number: int, box: NDArray[np.float32]) -> float:
    left, top, right, bottom = (int(value) for value in box)
    beyond_y, beyond_x = (bottom - top) // 4 + 2, (right - left) // 4 + 2
    rows = slice(max(top - beyond_y, 0), bottom + beyond_y)
    columns = slice(max(left - beyond_x, 0), right + beyond_x)
    around, pixels = instances[rows, columns], image[rows, columns]
    inside, ground = pixels[around == number], pixels[around == 0]
    if not len(ground):
        return 0.0
    sums = inside.sum(axis=0, dtype=np.int64), ground.sum(axis=0, dtype=np.int64)
    return (
        sum(abs(int(a) / len(inside) - int(b) / len(ground)) for a, b in zip(*sums, strict=True))
        / 3
    )


def boundaries(instances: Map, order: list[int]) -> Map:
    """Return the outlines of the visible items, one pixel wide, uint8 [H, W] of 0 and 1.

    A pixel is on a boundary if one of its four neighbours belongs to an item farther away or to
    the ground: between two items the line runs in the nearer one. The picture's edge is none.

    Args:
        instances: uint8 [H, W].
        order: indices of the items (number − 1) from the farthest to the nearest.
    """
    nearness = np.zeros(len(order) + 1, np.uint8)
    nearness[np.array(order) + 1] = np.arange(1, len(order) + 1)
    depth = nearness[instances]
    outline = np.zeros(depth.shape, bool)
    outline[1:] |= depth[1:] > depth[:-1]
    outline[:-1] |= depth[:-1] > depth[1:]
    outline[:, 1:] |= depth[:, 1:] > depth[:, :-1]
    outline[:, :-1] |= depth[:, :-1] > depth[:, 1:]
    return outline.astype(np.uint8)


def skeleton(instances: Map, boxes: NDArray[np.float32]) -> Map:
    """Return the middle lines of the visible items, one pixel wide, uint8 [H, W] of 0 and 1.

    Each item's visible mask is thinned by itself (Zhang and Suen 1984, scikit-image's
    ``skeletonize``).
    """
    from skimage.morphology import skeletonize

    lines = np.zeros(instances.shape, np.uint8)
    for number, box in enumerate(boxes, 1):
        left, top, right, bottom = (int(value) for value in box)
        window = slice(top, bottom), slice(left, right)
        mask = np.pad(instances[window] == number, 1)
        lines[window] |= skeletonize(mask)[1:-1, 1:-1]  # type: ignore[no-untyped-call]
    return lines
