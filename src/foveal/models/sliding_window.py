"""What a dense network says about whole pictures: windows, scales and mirror images averaged.

The protocol by which segmentation papers test, as a function of any network that maps pictures
[B, C, h, w] to logits [B, K, h, w].
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad


def class_probabilities(
    model: Callable[[Tensor], Any],
    pictures: Iterable[Tensor],
    *,
    window: int = 0,
    stride: int | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = True,
    long_side: int | None = None,
    window_batch: int = 4,
) -> Iterator[Tensor]:
    """Yield the probability of each class at each pixel of each picture, at its own size.

    For each scale the picture's long side is resized to ``long_side * scale``, the picture padded
    with 0 (the mean, where it is normalised) on all sides up to the window, and cut into windows
    ``stride`` apart, the last of a row or column flush with the border. The softmax of a window and
    of its mirror image are averaged, then those of all windows at a pixel; the result is resized to
    the picture's own size, and the scales are averaged. Resizing is bilinear, without antialiasing,
    as in the official code.

    Windows of several pictures go through the network together. How many does not change the order
    in which anything is added, so the result does not depend on it, but for what the network's own
    rounding makes of the batch's size. In memory are one map of all classes of a picture, a second
    one where a scale is not the picture's own, and the logits of ``window_batch`` windows.

    Source: the test protocol of SPNet's official code, arXiv:2003.13328.

    Args:
        model: [B, C, h, w] -> logits [B, K, h, w], in eval mode.
        pictures: preprocessed, each [C, H, W], on the network's device.
        window: side of the square that the network sees, pixels; 0: the whole picture at once.
        stride: from one window to the next, in pixels, at most ``window``; None: two thirds of the
            window, rounded up.
        scales: at which the picture is looked at.
        flip: also look at the mirror image of each window.
        long_side: of the picture at scale 1, pixels; None: its own.
        window_batch: windows in one forward pass (and as many mirror images in a second).

    Yields:
        float32 [K, H, W], which sums to 1 over K.

    Raises:
        ValueError: an argument out of range, or an output that is no map of the window's size.

    Example:
        >>> x = torch.rand(2, 30, 50)
        >>> (p,) = class_probabilities(torch.nn.Identity(), [x], window=16, flip=False)
        >>> torch.testing.assert_close(p, x.softmax(0))
    """
    stride = math.ceil(window * 2 / 3) if stride is None else stride
    if window < 0 or window_batch < 1 or (window and not 1 <= stride <= window):
        raise ValueError(
            "window must be at least 0, stride in [1, window] and window_batch at least 1, "
            f"not {window}, {stride} and {window_batch}"
        )
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"scales must be numbers above 0, not {list(scales)}")
    unfinished: deque[_Picture] = deque()
    batch: list[_Window] = []
    for x in pictures:
        picture = _Picture(x, len(scales))
        unfinished.append(picture)
        for scale in scales:
            for cut in _cut(picture, scale, window, stride, long_side):
                if batch and (len(batch) == window_batch or cut.x.shape != batch[0].x.shape):
                    _look(model, batch, flip)
                    batch.clear()
                batch.append(cut)
        while unfinished and not unfinished[0].scales_left:
            yield unfinished.popleft().mean()
    if batch:
        _look(model, batch, flip)
    for picture in unfinished:
        yield picture.mean()


def most_probable(probabilities: Tensor) -> Tensor:
    """Return the class of each pixel, or -1 where the probabilities are not numbers.

    Args:
        probabilities: [K, H, W].

    Returns:
        int64 [H, W].
    """
    highest, label = probabilities.max(0)
    return label.masked_fill(highest.isnan(), -1)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows begin along a side of at least a window's length.

    Example:
        >>> window_starts(10, 4, 3), window_starts(11, 4, 3), window_starts(4, 4, 3)
        ([0, 3, 6], [0, 3, 6, 7], [0])
    """
    return [min(i * stride, length - window) for i in range(-(-(length - window) // stride) + 1)]


class _Picture:
    """A picture and the sum of what was found at the scales that are done."""

    def __init__(self, x: Tensor, scales: int) -> None:
        self.x, self.scales, self.scales_left = x, scales, scales
        self.total: Tensor | None = None

    def add(self, probabilities: Tensor) -> None:
        self.total = probabilities if self.total is None else self.total.add_(probabilities)
        self.scales_left -= 1

    def mean(self) -> Tensor:
        assert self.total is not None
        return self.total if self.scales == 1 else self.total.div_(self.scales)


class _Scale:
    """A padded picture at one scale and the sum of what was found in its windows.

    Args:
        picture: whose scale it is.
        padded: sides after padding.
        size: sides before.
        corner: where the unpadded picture begins.
        rows: where windows begin, from the top.
        columns: where windows begin, from the left.
    """

    def __init__(
        self,
        picture: _Picture,
        padded: tuple[int, int],
        size: tuple[int, int],
        corner: tuple[int, int],
        rows: list[int],
        columns: list[int],
    ) -> None:
        self.picture, self.padded, self.size, self.corner = picture, padded, size, corner
        self.rows, self.columns = rows, columns
        self.windows_left = len(rows) * len(columns)
        self.sum: Tensor | None = None

    def add(self, row: int, column: int, probabilities: Tensor) -> None:
        if self.sum is None:
            self.sum = probabilities.new_zeros(len(probabilities), *self.padded)
        height, width = probabilities.shape[1:]
        self.sum[:, row : row + height, column : column + width] += probabilities
        self.windows_left -= 1
        if not self.windows_left:
            self._finish(height, width)

    def _finish(self, height: int, width: int) -> None:
        assert self.sum is not None
        total, self.sum = self.sum, None
        # How many windows cover a pixel is a number of rows times a number of columns.
        for axis, starts, length in ((1, self.rows, height), (2, self.columns, width)):
            cover = total.new_zeros(total.shape[axis])
            for start in starts:
                cover[start : start + length] += 1
            total /= cover[:, None] if axis == 1 else cover
        (top, left), (rows, columns) = self.corner, self.size
        total = total[:, top : top + rows, left : left + columns]
        own = self.picture.x.shape[1:]
        self.picture.add(total if total.shape[1:] == own else _resize(total, tuple(own)))


@dataclass(frozen=True)
class _Window:
    scale: _Scale
    row: int
    column: int
    x: Tensor


def _cut(
    picture: _Picture, scale: float, window: int, stride: int, long_side: int | None
) -> Iterator[_Window]:
    """Yield the windows of a picture at one scale, row by row."""
    x = picture.x
    height, width = x.shape[1:]
    longest = max(height, width)
    long = max(1, round((long_side or longest) * scale))
    height, width = (max(1, round(side * long / longest)) for side in (height, width))
    if (height, width) != x.shape[1:]:
        x = _resize(x, (height, width))
    size = (window or height, window or width)
    below, beside = max(0, size[0] - height), max(0, size[1] - width)
    corner = below // 2, beside // 2
    if below or beside:
        x = pad(x, (corner[1], beside - corner[1], corner[0], below - corner[0]))
    padded = x.shape[1], x.shape[2]
    rows, columns = (
        window_starts(side, length, stride or 1) for side, length in zip(padded, size, strict=True)
    )
    whole = _Scale(picture, padded, (height, width), corner, rows, columns)
    for row in rows:
        for column in columns:
            yield _Window(whole, row, column, x[:, row : row + size[0], column : column + size[1]])


def _look(model: Callable[[Tensor], Any], batch: Sequence[_Window], flip: bool) -> None:
    """Add what the network says about windows of one size to their scales."""
    x = torch.stack([window.x for window in batch])
    logits = _logits(model, x)
    mirrored = _logits(model, x.flip(-1)) if flip else None
    for i, window in enumerate(batch):
        probabilities = logits[i].float().softmax(0)
        if mirrored is not None:
            probabilities = (probabilities + mirrored[i].float().softmax(0).flip(-1)) / 2
        window.scale.add(window.row, window.column, probabilities)


def _logits(model: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(x)
    if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[2:] != x.shape[2:]:
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the network must return logits [B, K, {x.shape[2]}, {x.shape[3]}] for pictures "
            f"{list(x.shape)}, not {found}: is it a dense network, in eval mode?"
        )
    return logits


def _resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return interpolate(x[None], size, mode="bilinear", align_corners=False)[0]
