"""Class prototypes: means of features, their moving average, and items in their terms."""

from typing import Literal, get_args

import torch
from torch import Tensor

from foveal.adaptation.items import like_items, to_items
from foveal.adaptation.precision import wide, without_autocast
from foveal.names import unknown

Policy = Literal["first_seen", "always"]


def class_means(
    features: Tensor, weights_or_labels: Tensor, num_classes: int, ignore_index: int = -1
) -> tuple[Tensor, Tensor]:
    """Return the mean feature of each class.

    Args:
        features: [n, D] or [B, D, H, W].
        weights_or_labels: labels int64 [n] or [B, H, W], or soft weights [n, C] or [B, C, H, W],
            at least 0, such as probabilities.
        num_classes: C.
        ignore_index: the label that belongs to no class.

    Returns:
        Means [C, D] and the weight of each class [C] (items, for labels), float32 at least. A class
        without weight has a row of zeros.

    Raises:
        ValueError: shapes that do not fit, or a label that is no class.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]])
        >>> class_means(features, torch.tensor([0, 0, -1]), num_classes=2)
        (tensor([[2., 1.],
                [0., 0.]]), tensor([2., 0.]))
    """
    sums, weight = class_sums(features, weights_or_labels, num_classes, ignore_index)
    return divided(sums, weight), weight


def class_sums(
    features: Tensor, weights_or_labels: Tensor, num_classes: int, ignore_index: int = -1
) -> tuple[Tensor, Tensor]:
    """Return what :func:`class_means` divides: sums [C, D] and weights [C]."""
    check_of_items(weights_or_labels, features, num_classes)
    items = to_items(wide(features), "features")
    if weights_or_labels.is_floating_point():
        weights = to_items(wide(weights_or_labels), "weights").to(items.dtype)
    else:
        weights = one_hot(weights_or_labels, num_classes, ignore_index).to(items.dtype)
    # What counts for nothing may be anything, nan included.
    items = items.where((weights != 0).any(1, keepdim=True), 0)
    with without_autocast(items):
        return weights.mT @ items, weights.sum(0)


def divided(sums: Tensor, weight: Tensor) -> Tensor:
    """Return means [C, D] of sums [C, D] and weights [C]; rows without weight are 0."""
    return sums / weight.where(weight > 0, 1)[:, None]


def one_hot(labels: Tensor, num_classes: int, ignore_index: int = -1) -> Tensor:
    """Return labels of any shape as rows, bool [N, C]; rows of ``ignore_index`` are all False.

    Raises:
        ValueError: a label that is no class and not ignored. (Not under ``torch.compile``.)
    """
    labels = labels.reshape(-1, 1)
    counted = labels != ignore_index
    if not torch.compiler.is_compiling():
        wrong = labels[counted & ((labels < 0) | (labels >= num_classes))]
        if len(wrong):
            raise ValueError(
                f"labels must lie in [0, {num_classes - 1}] or be {ignore_index} (ignored), and "
                f"one is {int(wrong[0])}"
            )
    return (labels == torch.arange(num_classes, device=labels.device)) & counted


def check_of_items(weights_or_labels: Tensor, features: Tensor, num_classes: int) -> None:
    """Raise ValueError unless labels or weights are those of the features' items."""
    soft = weights_or_labels.is_floating_point()
    items = (*features.shape[:1], *features.shape[2:])
    expected = (*items[:1], num_classes, *items[1:]) if soft else items
    if weights_or_labels.shape != expected:
        raise ValueError(
            f"{'weights' if soft else 'labels'} of features {list(features.shape)} must be "
            f"{list(expected)}, not {list(weights_or_labels.shape)}"
        )


def ema_update(
    prototypes: Tensor,
    means: Tensor,
    weight: Tensor,
    momentum: float,
    initialized: Tensor | None = None,
    policy: Policy = "first_seen",
) -> tuple[Tensor, Tensor]:
    """Return prototypes moved towards the means of a batch: m M + (1 - m) mean.

    Classes without weight stay. There is no gradient.

    Source: official code of NOUN (Hu et al. 2021); ``first_seen`` is foveal's.

    Args:
        prototypes: M, [C, D].
        means: [C, D] of :func:`class_means`.
        weight: [C]; classes above 0 are there.
        momentum: m, in [0, 1].
        initialized: bool [C], which classes have been seen; None: none has.
        policy: ``first_seen``: a class takes its first mean whole; ``always``: it is averaged with
            whatever stands there, as in the official code, whose prototypes start as noise.

    Returns:
        Prototypes [C, D], of the type of ``prototypes``, and which classes have been seen by now,
        bool [C].

    Raises:
        ValueError: a momentum out of range or an unknown policy.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie in [0, 1], not {momentum}")
    if policy not in get_args(Policy):
        raise ValueError(unknown("policy", str(policy), get_args(Policy)))
    present = weight.detach() > 0
    if initialized is None:
        initialized = torch.zeros_like(present)
    initialized = initialized.bool()
    old, new = wide(prototypes.detach()), wide(means.detach())
    moved = momentum * old + (1 - momentum) * new
    if policy == "first_seen":
        moved = moved.where(initialized[:, None], new)
    return moved.where(present[:, None], old).to(prototypes.dtype), initialized | present


def prototypical_representation(
    logits_or_probs: Tensor, prototypes: Tensor, *, is_logits: bool, mask: Tensor | None = None
) -> Tensor:
    """Return each item as the mean of the prototypes under its prediction: r = p M.

    Source: Hu et al. 2020 (PANDA) and 2021 (PRONOUN), arXiv:2003.13274; the mask is foveal's.

    Args:
        logits_or_probs: [n, C] or [B, C, H, W].
        prototypes: M, [C, D].
        is_logits: whether the softmax is still to be taken.
        mask: bool [C], which prototypes are there; the others' probability is removed and the rest
            made to sum to 1. Where nothing is left the representation is 0.

    Returns:
        [n, D] or [B, D, H, W], float32 at least.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> prototypes = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
        >>> prototypical_representation(torch.tensor([[0.5, 0.5]]), prototypes, is_logits=False)
        tensor([[1., 2.]])
    """
    items = to_items(wide(logits_or_probs), "logits" if is_logits else "probabilities")
    classes = items.shape[1]
    if prototypes.ndim != 2 or len(prototypes) != classes:
        raise ValueError(
            f"predictions of {classes} classes need prototypes [{classes}, D], not "
            f"{list(prototypes.shape)}"
        )
    if mask is not None and mask.shape != (classes,):
        raise ValueError(f"mask must be [{classes}], not {list(mask.shape)}")
    probs = _probabilities(items, is_logits, None if mask is None else mask.bool())
    with without_autocast(probs):
        common = torch.promote_types(probs.dtype, prototypes.dtype)
        return like_items(probs.to(common) @ prototypes.to(common), logits_or_probs)


def _probabilities(items: Tensor, is_logits: bool, mask: Tensor | None) -> Tensor:
    """Return probabilities [N, C] of the classes that are there; 0 if none is."""
    if is_logits:
        if mask is None:
            return items.softmax(1)
        # Not -inf, which gives nan where no class is there.
        return items.masked_fill(~mask, torch.finfo(items.dtype).min).softmax(1) * mask
    if mask is None:
        return items
    left = items * mask
    total = left.sum(1, keepdim=True)
    return left / total.where(total > 0, 1)


def prototype_spread(prototypes: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the least distance of two prototypes over their mean norm.

    Near 0 two classes have become one; the loss of
    :func:`~foveal.adaptation.functional.intra_class_variance` alone would bring that about.

    Args:
        prototypes: [C, D].
        mask: bool [C], which are there; None: all.

    Returns:
        [], float32 at least; inf of fewer than two.
    """
    rows = wide(prototypes)
    mask = torch.ones(len(rows), dtype=torch.bool, device=rows.device) if mask is None else mask
    mean_norm = (torch.linalg.vector_norm(rows, dim=1) * mask).sum() / mask.sum().clamp_min(1)
    # The differences themselves: by products of rows, equal rows would seem apart.
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    pairs = (mask & mask[:, None]).triu(1)
    least = distances.where(pairs, torch.inf).amin()
    spread: Tensor = least / mean_norm.clamp_min(torch.finfo(rows.dtype).tiny)
    return spread
