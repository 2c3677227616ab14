"""How well a map tells what matters: scores while a picture is deleted, and while it is inserted.

Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421, section 4.2.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from foveal.explanation.looking import plain, run
from foveal.explanation.scores import Targets, resolve_targets
from foveal.names import unknown

Baseline = float | Tensor | Literal["blur"]
Score = Literal["softmax", "sigmoid", "logit"]
_SCORES = ("softmax", "sigmoid", "logit")
_KERNEL, _SIGMA = 11, 5.0


@dataclass(frozen=True, eq=False)
class DeletionInsertion:
    """What deleting and inserting pixels in the order of a map did to a class's score.

    Attributes:
        deletion: area under each picture's curve of deletion, [B]; the lower, the better the map.
        insertion: likewise of insertion, [B]; the higher, the better.
        deletion_curve: scores after each step, [B, steps + 1], from the whole picture to none.
        insertion_curve: likewise, from nothing to the whole picture.
        fractions: share of the pixels that are deleted or inserted at each step, [steps + 1].
    """

    deletion: Tensor
    insertion: Tensor
    deletion_curve: Tensor
    insertion_curve: Tensor
    fractions: Tensor


def deletion_insertion(
    model: nn.Module,
    x: Tensor,
    maps: Tensor,
    targets: Targets = None,
    *,
    steps: int = 50,
    deleted: Baseline = 0.0,
    background: Baseline = "blur",
    score: Score = "softmax",
    chunk_size: int = 32,
) -> DeletionInsertion:
    """Delete and insert the pixels of pictures, those first that a map has as most important.

    At step t of ``steps``, the n(t) = floor(t H W / steps) pixels of the largest values are changed
    in all channels; of equal ones, the first in rows from the top. The area is that of the
    trapezoids between the scores s(t) over the share of pixels n(t) / (H W), from 0 to 1:

        sum over t of (n(t + 1) - n(t)) / (H W) (s(t) + s(t + 1)) / 2.

    Args:
        model: a network with logits [B, K]; it runs in evaluation mode and is left as it was.
        x: pictures as the network wants them, [B, C, H, W].
        maps: [B, H, W]; only the order of their values counts.
        targets: one class for all pictures or one for each, [B]; None: the predicted one.
        steps: at least 1.
        deleted: what deleted pixels become: a number, a tensor that broadcasts with ``x``, or
            ``"blur"``, the picture blurred by a Gaussian (11 x 11 pixels, sigma 5, reflected at the
            border). 0 is the mean colour of usual preprocessing.
        background: what insertion begins with, likewise.
        score: of a class: its ``softmax`` probability, as in the paper, its ``sigmoid`` or its
            ``logit``.
        chunk_size: pictures in one forward pass.

    Raises:
        ValueError: maps of another size or with values that are not numbers, a class that the
            network does not have, an unknown score, a segmentation network, an impossible option.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> x = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]]]])
        >>> found = deletion_insertion(network, x, x[:, 0], steps=4, background=0, score="logit")
        >>> found.deletion_curve, found.deletion
        (tensor([[1., 0., 0., 0., 0.]]), tensor([0.1250]))
    """
    _check(x, maps, steps, score, chunk_size)
    model = plain(model)
    logits = torch.cat([run(model, part) for part in torch.split(x, chunk_size)])
    if logits.ndim != 2:
        raise ValueError("deletion and insertion are for networks with one score per class")
    classes = resolve_targets(logits, targets)
    if classes.shape[1] != 1:
        raise ValueError("deletion and insertion take one class for each picture, not several")
    pictures, pixels = len(x), x.shape[2] * x.shape[3]
    order = maps.to(x.device).flatten(1).sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(pixels, device=x.device).expand(pictures, -1)
    rank = torch.empty_like(order).scatter_(1, order, places).view(pictures, 1, *x.shape[2:])
    numbers = torch.arange(steps + 1, device=x.device) * pixels // steps

    def curve(before: Tensor, after: Tensor) -> Tensor:
        scores = []
        pairs = torch.cartesian_prod(torch.arange(pictures), torch.arange(steps + 1))
        for part in torch.split(pairs.to(x.device).view(-1, 2), chunk_size):
            b, t = part.unbind(1)
            changed = rank[b] < numbers[t].view(-1, 1, 1, 1)
            seen = torch.where(changed, after[b], before[b])
            scores.append(_scores(run(model, seen), classes[b, 0], score))
        return torch.cat(scores).view(pictures, steps + 1) if scores else logits.new_empty(0, 1)

    deletion = curve(x, _baseline(x, deleted))
    insertion = curve(_baseline(x, background), x)
    fractions = (numbers / pixels).to(deletion.dtype)
    return DeletionInsertion(
        torch.trapezoid(deletion, fractions),
        torch.trapezoid(insertion, fractions),
        deletion,
        insertion,
        fractions,
    )


def _baseline(x: Tensor, baseline: Baseline) -> Tensor:
    if isinstance(baseline, str):
        if baseline != "blur":
            raise ValueError(unknown("baseline", baseline, ["blur"]))
        # Reflection takes a picture larger than half the kernel.
        sides = [min(_KERNEL, 2 * side - 1) for side in (x.shape[3], x.shape[2])]
        blurred: Tensor = transforms.gaussian_blur(x.float(), sides, [_SIGMA, _SIGMA])
        return blurred.to(x.dtype)
    try:
        return torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x)
    except RuntimeError as error:
        raise ValueError(
            f"a baseline must broadcast with pictures {list(x.shape)}, as a number or a tensor "
            "[C, 1, 1] does"
        ) from error


def _scores(logits: Tensor, classes: Tensor, score: Score) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if score == "softmax":
        logits = logits.softmax(1)
    elif score == "sigmoid":
        logits = logits.sigmoid()
    return logits.gather(1, classes[:, None])[:, 0]


def _check(x: Tensor, maps: Tensor, steps: int, score: str, chunk_size: int) -> None:
    if score not in _SCORES:
        raise ValueError(unknown("score", score, _SCORES))
    if x.ndim != 4 or maps.shape != (x.shape[0], *x.shape[2:]):
        raise ValueError(
            f"maps must be [B, H, W] for pictures [B, C, H, W], not {list(maps.shape)} for "
            f"{list(x.shape)}"
        )
    if not maps.isfinite().all():
        raise ValueError("maps must be finite, as pixels are ordered by them")
    if steps < 1 or chunk_size < 1:
        raise ValueError(f"steps and chunk_size must be at least 1, not {steps} and {chunk_size}")
