"""Flat and dense batches as items: each position of a map is an item like any other."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def to_items(values: Tensor, what: str) -> Tensor:
    """Return [n, D] as it is, and [B, D, H, W] as [B H W, D].

    Args:
        values: flat or dense.
        what: its word for the error.

    Raises:
        ValueError: another number of dimensions.
    """
    if values.ndim == 2:
        return values
    if values.ndim == 4:
        return values.movedim(1, -1).flatten(0, 2)
    raise ValueError(f"{what} must be [n, D] or [B, D, H, W], not {list(values.shape)}")


def like_items(items: Tensor, like: Tensor) -> Tensor:
    """Return [N, D] in the form of ``like``: [n, D], or [B, D, H, W] of its B, H and W."""
    if like.ndim == 2:
        return items
    batch, _, height, width = like.shape
    return items.view(batch, height, width, -1).movedim(-1, 1)


def check_aligned(first: Tensor, second: Tensor, names: tuple[str, str]) -> None:
    """Raise ValueError unless two batches have the same items, whatever their channels."""
    of_items = [[*values.shape[:1], *values.shape[2:]] for values in (first, second)]
    if of_items[0] != of_items[1]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same items, and are {list(first.shape)} and "
            f"{list(second.shape)}"
        )


def labels_at(labels: Tensor, features: Tensor) -> Tensor:
    """Return label maps at the resolution of a feature map, each cell's label its nearest pixel's.

    Args:
        labels: int64 [B, H, W] of any size, or [n] for flat features.
        features: [B, D, h, w], or [n, D].

    Returns:
        int64 [B, h, w], or [n].
    """
    if features.ndim != 4 or labels.ndim != 3 or labels.shape[1:] == features.shape[2:]:
        return labels
    # float64 holds every label that there can be.
    values = labels[:, None].to(torch.float64)
    return interpolate(values, size=features.shape[2:], mode="nearest-exact")[:, 0].long()
