"""What a network for dense tasks says about whole pictures: scales averaged, large ones in tiles.

Source: the test protocol of DFI's official code, arXiv:2004.08595.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from foveal.models.sliding_window import window_starts

_LINES = ("edge", "skeleton")
_MEAN_OF_SIDES = ("edge",)  # tasks whose side maps count in the result, as in the official code


def picture_maps(
    model: Any,
    pictures: Iterable[Tensor],
    scales: Mapping[str, Sequence[float]],
    *,
    stretch: bool = True,
    tile: int = 0,
) -> Iterator[dict[str, Tensor]]:
    """Yield the maps of each picture, at its own size.

    The picture is resized to each scale (bilinear, without antialiasing), and goes through the
    network once for all tasks that look at this scale. A task's map is the sigmoid of the fused
    logits, for edges the mean of the sigmoids of the fused and all side maps. Each is resized to
    the picture's size, and the scales are averaged.

    Args:
        model: ``model(x, tasks, sides=True)`` returns task → tuple of logits [B, 1, h, w], the
            fused ones first; in eval mode.
        pictures: preprocessed, each [C, H, W], on the network's device.
        scales: task → at which scales a picture is looked at.
        stretch: let each scale's map of edges and skeletons span [0, 1]; a constant one stays.
        tile: side of the squares that a picture is cut into where it is larger, pixels; they
            overlap by a quarter, and the nearer to a tile's border, the less its value counts.
            0: never.

    Yields:
        task → float32 [H, W] in [0, 1], in the order of ``scales``; not a number where the
        network's output is none.

    Raises:
        ValueError: a scale that is not above 0, or a negative tile.
    """
    if tile < 0 or not all(scale > 0 for task in scales for scale in scales[task]):
        raise ValueError(
            f"scales must be above 0 and tile at least 0, not {dict(scales)} and {tile}"
        )
    for x in pictures:
        size = (x.shape[-2], x.shape[-1])
        maps = {task: x.new_zeros(size, dtype=torch.float32) for task in scales}
        for scale in sorted({scale for several in scales.values() for scale in several}):
            tasks = [task for task in scales if scale in scales[task]]
            for task, found in _at_scale(model, x, tasks, scale, tile).items():
                if stretch and task in _LINES:
                    low, high = found.aminmax()
                    # A constant map keeps its value, and what is not a number remains so.
                    found = torch.where(low == high, found, (found - low) / (high - low))
                maps[task] += _resized(found, size) / len(set(scales[task]))
        yield {task: found.clamp(0, 1) for task, found in maps.items()}


def _at_scale(
    model: Any, x: Tensor, tasks: Sequence[str], scale: float, tile: int
) -> dict[str, Tensor]:
    """Return task → probabilities [h, w] of a picture at a scale."""
    height, width = (max(1, round(scale * side)) for side in x.shape[-2:])
    picture = x if scale == 1 else interpolate(x[None], (height, width), mode="bilinear")[0]
    if not tile or max(height, width) <= tile:
        return _look(model, picture, tasks)
    totals = {task: x.new_zeros((height, width), dtype=torch.float32) for task in tasks}
    weights = x.new_zeros((height, width), dtype=torch.float32)
    rows, columns = min(tile, height), min(tile, width)
    weight = torch.minimum(_tent(rows, x.device)[:, None], _tent(columns, x.device))
    for top in window_starts(height, rows, max(1, rows * 3 // 4)):
        for left in window_starts(width, columns, max(1, columns * 3 // 4)):
            part = (slice(top, top + rows), slice(left, left + columns))
            for task, found in _look(model, picture[:, part[0], part[1]], tasks).items():
                totals[task][part] += weight * found
            weights[part] += weight
    return {task: total / weights for task, total in totals.items()}


def _tent(length: int, device: torch.device) -> Tensor:
    """Return weights that grow from a tile's borders to its middle, [length], above 0."""
    place = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    return torch.minimum(place, length + 1 - place)


def _look(model: Any, picture: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
    """Return task → probabilities [h, w] of a picture as it is."""
    found = {}
    for task, logits in model(picture[None], tasks, sides=True).items():
        maps = logits if task in _MEAN_OF_SIDES else logits[:1]
        found[task] = torch.stack([m.float().sigmoid()[0, 0] for m in maps]).mean(0)
    return {task: found[task] for task in tasks}


def _resized(found: Tensor, size: tuple[int, int]) -> Tensor:
    if found.shape == size:
        return found
    return interpolate(found[None, None], size, mode="bilinear")[0, 0]
