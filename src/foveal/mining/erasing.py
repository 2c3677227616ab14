"""Hiding what was mined: in pictures, or in maps of features."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d


def dilate(masks: Tensor, dilation: int) -> Tensor:
    """Return masks [P, H, W] that reach ``dilation`` pixels further, diagonally too; boolean.

    Example:
        >>> dilate(torch.eye(3)[:1, None], 1).int().tolist()
        [[[1, 1, 0]]]
    """
    masks = masks.bool()
    if dilation < 0:
        raise ValueError(f"dilation must be at least 0, not {dilation}")
    if dilation == 0 or masks.numel() == 0:
        return masks
    # one pixel at a time, as a window may not be much larger than a small picture
    grown = masks.float()[:, None]
    for _ in range(min(dilation, max(masks.shape[1:]))):
        grown = max_pool2d(grown, 3, stride=1, padding=1)
    return grown[:, 0].bool()


def erase(
    images: Tensor, masks: Tensor, fill: float | Sequence[float] | Tensor = 0.0, dilation: int = 0
) -> Tensor:
    """Return pictures with what lies under masks replaced by a colour.

    Args:
        images: [P, C, H, W].
        masks: boolean or 0 and 1, [P, H, W].
        fill: what is put there, one value or one for each channel. 0 is the mean colour of
            pictures that were normalised.
        dilation: pixels by which the masks are enlarged first.

    Returns:
        New pictures like ``images``.

    Raises:
        ValueError: the masks do not fit, or ``fill`` has another number of channels.

    Example:
        >>> erase(torch.ones(1, 1, 2, 2), torch.tensor([[[1, 0], [0, 0]]]), fill=0.5)
        tensor([[[[0.5000, 1.0000],
                  [1.0000, 1.0000]]]])
    """
    if images.ndim != 4 or masks.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            "images must be [P, C, H, W] and masks [P, H, W], not "
            f"{list(images.shape)} and {list(masks.shape)}"
        )
    colour = torch.as_tensor(fill, dtype=images.dtype, device=images.device)
    if colour.ndim > 1 or colour.numel() not in (1, images.shape[1]):
        raise ValueError(
            f"fill must be one value or one for each of the {images.shape[1]} channels, "
            f"not of shape {list(colour.shape)}"
        )
    return torch.where(dilate(masks, dilation)[:, None], colour.view(-1, 1, 1), images)


def feature_mask(masks: Tensor, size: tuple[int, int], coverage: float = 0.5) -> Tensor:
    """Return which cells of a smaller map are covered by masks.

    The areas are exact, also where a cell is not a whole number of pixels.

    Args:
        masks: boolean or 0 and 1, [P, H, W].
        size: (h, w) of the map.
        coverage: least covered share of a cell, in (0, 1].

    Returns:
        Boolean [P, h, w].

    Raises:
        ValueError: ``coverage`` out of range.

    Example:
        >>> feature_mask(torch.tensor([[[1, 1, 1, 0], [1, 0, 0, 0]]]), (1, 2))
        tensor([[[ True, False]]])
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must lie in (0, 1], not {coverage!r}")
    height, width = masks.shape[1:]
    rows, columns = _overlaps(height, size[0], masks), _overlaps(width, size[1], masks)
    # Whole numbers up to 2^53 are exact in float64: so is the comparison at half a cell.
    covered = rows @ masks.double() @ columns.T
    return covered >= coverage * (height * width)


def _overlaps(pixels: int, cells: int, like: Tensor) -> Tensor:
    """Return the length that each cell shares with each pixel, [cells, pixels].

    In units of a pixel's cells-th part, in which all lengths are whole.
    """
    cell = torch.arange(cells, device=like.device)[:, None]
    pixel = torch.arange(pixels, device=like.device)[None]
    low = torch.maximum(cell * pixels, pixel * cells)
    high = torch.minimum((cell + 1) * pixels, (pixel + 1) * cells)
    return (high - low).clamp(min=0).double()
