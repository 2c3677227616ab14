"""What every method's result is: a map of what speaks for an answer, and which answer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.explanation.class_activation import Normalize, enlarged, normalized


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map over one picture.

    Attributes:
        method: a name in :data:`foveal.explanation.METHODS`.
        layer: the module that the map comes from.
        target: the class that is explained; None for methods that know none.
        score: its logit, in segmentation the mean over the region; None without a target.
        raw: the map as the method computes it, float32 [h, w], on the CPU; where several scales
            were averaged, at the picture's size.
        size: (H, W) of the picture.
    """

    method: str
    layer: str
    target: int | None
    score: float | None
    raw: Tensor
    size: tuple[int, int]

    @property
    def map(self) -> Tensor:
        """The map at the picture's size, [H, W], bilinear with half-pixel centres.

        It is made when it is asked for, so that a thousand classes' explanations take little
        memory.
        """
        return enlarged(self.raw[None, None], self.size)[0, 0]

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
