"""Pairs of pictures and classes, and label maps composed from what was mined for them."""

from typing import Literal

import torch
from torch import Tensor

from foveal.names import unknown

Conflict = Literal["score", "smaller", "ignore"]
_CONFLICTS = ("score", "smaller", "ignore")
_EMPTY = ("background", "ignore")


def enumerate_pairs(labels: Tensor) -> Tensor:
    """Return the (picture, class) pairs that labels name, picture by picture.

    Args:
        labels: 1, or anything but 0, where the picture shows the class, [N, C].

    Returns:
        int64 [P, 2].

    Raises:
        ValueError: another shape.

    Example:
        >>> enumerate_pairs(torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]])).tolist()
        [[0, 0], [0, 2], [2, 1]]
    """
    if labels.ndim != 2:
        raise ValueError(f"labels must be [N, C], not {list(labels.shape)}")
    return labels.nonzero()


def compose_label_map(
    pairs: Tensor,
    masks: Tensor,
    scores: Tensor,
    num_images: int,
    conflict: Conflict = "score",
    saliency: Tensor | None = None,
    saliency_threshold: float = 0.5,
    ignore_index: int = 255,
    empty: Literal["background", "ignore"] = "background",
) -> Tensor:
    """Return one label map for each picture: 0 is background, a class c has the label c + 1.

    Args:
        pairs: picture and class, int64 [P, 2].
        masks: what was mined for each pair, boolean or 0 and 1, [P, H, W].
        scores: of each mined pixel, [P, H, W]; used by the rule ``score`` alone.
        num_images: N.
        conflict: who gets a pixel that several pairs claim: ``score``, the pair with the largest
            score there; ``smaller``, the one for which fewer pixels were mined, as small things
            lie in front of large ones; equal ones: the lower class. ``ignore``: nobody, it gets
            ``ignore_index``.
        saliency: [N, H, W]; a class on a pixel that is not salient, and background on one that is,
            become ``ignore_index``. This comes after the rule for conflicts.
        saliency_threshold: from which on a pixel is salient.
        ignore_index: label of the pixels from which nothing is learned.
        empty: what a picture without any pair becomes as a whole: ``background``, or ``ignore``.

    Returns:
        int64 [N, H, W].

    Raises:
        ValueError: shapes that do not fit, an unknown rule, or a label that is no label of its own.

    Example:
        >>> pairs, masks = torch.tensor([[0, 0], [0, 2]]), torch.tensor([[[1, 1, 0]], [[0, 1, 0]]])
        >>> compose_label_map(pairs, masks, masks * 0.9, 1, conflict="smaller").tolist()
        [[[1, 3, 0]]]
    """
    if conflict not in _CONFLICTS:
        raise ValueError(unknown("conflict rule", conflict, _CONFLICTS))
    if empty not in _EMPTY:
        raise ValueError(unknown("treatment of pictures without a class", empty, _EMPTY))
    _check(pairs, masks, scores, num_images, saliency, ignore_index)
    masks = masks.bool()
    labels = masks.new_zeros((num_images, *masks.shape[1:]), dtype=torch.int64)
    if empty == "ignore":
        without = torch.ones(num_images, dtype=torch.bool, device=labels.device)
        without[pairs[:, 0]] = False
        labels[without] = ignore_index
    areas = masks.sum((1, 2)).double()
    claimed = torch.zeros_like(labels, dtype=torch.bool)
    best = torch.full_like(labels, -torch.inf, dtype=torch.float64)
    # The lower class first: only what is better takes a pixel from it.
    for p in pairs[:, 1].argsort(stable=True).tolist():
        n, c = pairs[p].tolist()
        if conflict == "ignore":
            wanted = torch.where(claimed[n], ignore_index, c + 1)
            labels[n] = torch.where(masks[p], wanted, labels[n])
        else:
            rank = scores[p].double() if conflict == "score" else -areas[p]
            wins = masks[p] & (rank > best[n])
            labels[n] = torch.where(wins, c + 1, labels[n])
            best[n] = torch.where(wins, rank, best[n])
        claimed[n] |= masks[p]
    if saliency is not None:
        salient = saliency.to(labels.device) >= saliency_threshold
        labels = torch.where(claimed == salient, labels, ignore_index)
    return labels


def _check(
    pairs: Tensor,
    masks: Tensor,
    scores: Tensor,
    num_images: int,
    saliency: Tensor | None,
    ignore_index: int,
) -> None:
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs must be [P, 2], not {list(pairs.shape)}")
    if masks.ndim != 3 or len(masks) != len(pairs) or scores.shape != masks.shape:
        raise ValueError(
            f"masks and scores must be [P, H, W] with P = {len(pairs)} pairs, not "
            f"{list(masks.shape)} and {list(scores.shape)}"
        )
    if len(pairs) and not 0 <= int(pairs[:, 0].min()) <= int(pairs[:, 0].max()) < num_images:
        raise ValueError(
            f"a pair names picture {int(pairs[:, 0].max())}, and num_images is {num_images}"
        )
    if len(pairs) and 0 <= ignore_index - 1 <= int(pairs[:, 1].max()):
        raise ValueError(
            f"ignore_index {ignore_index} is the label of class {ignore_index - 1}: take another"
        )
    if saliency is not None and saliency.shape != (num_images, *masks.shape[1:]):
        raise ValueError(
            f"saliency must be {[num_images, *masks.shape[1:]]}, not {list(saliency.shape)}"
        )
