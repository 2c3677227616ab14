"""What every method's result is: a map of what speaks for an answer, and which answer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.explanation.class_activation import Normalize, enlarged, normalized


@dataclass(frozen=True)
class Middle:
    """The part of a picture that a network saw.

    Attributes:
        resized: (H, W) to which the whole picture was brought.
        side: of the square that was cut out of its middle.
    """

    resized: tuple[int, int]
    side: int

    def framed(self, maps: Tensor) -> Tensor:
        """Return maps [B, T, h, w] of the part over the whole, 0 outside, [B, T, H, W]."""
        # As torchvision's CenterCrop does it.
        top, left = (round((whole - self.side) / 2.0) for whole in self.resized)
        frame = maps.new_zeros((*maps.shape[:2], *self.resized))
        part = enlarged(maps, (self.side, self.side))
        frame[:, :, top : top + self.side, left : left + self.side] = part
        return frame


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map over one picture.

    Attributes:
        method: a name in :data:`foveal.explanation.METHODS`.
        layer: the module that the map comes from.
        target: the class that is explained; None for methods that know none.
        score: its logit, in segmentation the mean over the region; None without a target.
        raw: the map as the method computes it, float32 [h, w], on the CPU; where several scales
            were averaged, at the size of what the network saw.
        size: (H, W) of the picture.
        middle: what the network saw of it; None: all of it.
    """

    method: str
    layer: str
    target: int | None
    score: float | None
    raw: Tensor
    size: tuple[int, int]
    middle: Middle | None = None

    @property
    def map(self) -> Tensor:
        """The map at the picture's size, [H, W], bilinear with half-pixel centres.

        It is 0 where the network did not see the picture. It is made when it is asked for, so that
        a thousand classes' explanations take little memory.
        """
        maps = self.raw[None, None]
        maps = maps if self.middle is None else self.middle.framed(maps)
        return enlarged(maps, self.size)[0, 0]

    def normalized(self, normalize: Normalize = "minmax") -> Tensor:
        """Return the map brought to [0, 1], [H, W]; see :func:`foveal.explanation.normalized`."""
        return normalized(self.map, normalize)


def explanations(
    method: str,
    layer: str,
    maps: Tensor,
    size: tuple[int, int],
    targets: Tensor | None = None,
    scores: Tensor | None = None,
) -> list[Explanation]:
    """Return one explanation for each map, picture by picture.

    Args:
        method: as of :class:`Explanation`.
        layer: likewise.
        maps: [B, T, h, w].
        size: likewise.
        targets: [B, T], or None.
        scores: [B, T], or None.
    """
    raw = maps.detach().to("cpu", torch.float32)
    classes = [None] * raw[:, :, 0, 0].numel() if targets is None else targets.flatten().tolist()
    values = [None] * len(classes) if scores is None else scores.flatten().tolist()
    return [
        Explanation(method, layer, target, score, one, size)
        for target, score, one in zip(classes, values, raw.flatten(0, 1), strict=True)
    ]
