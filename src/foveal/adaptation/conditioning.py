"""What a domain discriminator is told of the prediction beside the features."""

import math
from collections.abc import Callable

from torch import Tensor

from foveal.adaptation.items import check_aligned
from foveal.adaptation.precision import wide, without_autocast

MAX_SCALE = 1e4  # of a condition that is next to nothing


def norm_matched(
    cond: Tensor,
    ref: Tensor,
    factor: float = 1.0,
    eps: float = 1e-12,
    across: Callable[[Tensor], Tensor] = Tensor.detach,
) -> tuple[Tensor, Tensor]:
    """Return a condition scaled to the norm of what it stands beside, and the scale.

    scale = factor ||ref|| / ||cond||, of Frobenius norms over the joined batch: a sure prediction
    keeps a larger norm than an unsure one. Condition and scale are constants for the gradient.

    Source: Hu et al. 2021 (NOUN), arXiv:2003.13274v4, and its official code.

    Args:
        cond: [n, C] or [B, C, H, W].
        ref: usually features, [n, D] or [B, D, H, W].
        factor: a, of the norms.
        eps: the least norm that is divided by.
        across: what makes the squared norms those of all processes; alone, they are as they are.

    Returns:
        The scaled condition, of the shape of ``cond``, and the scale [], at most 1e4; float32 at
        least.

    Example:
        >>> import torch
        >>> norm_matched(torch.tensor([[0.6, 0.8]]), torch.tensor([[3.0, 4.0]]))
        (tensor([[3., 4.]]), tensor(5.))
    """
    cond, ref = wide(cond.detach()), wide(ref.detach())
    of_cond, of_ref = (across(values.square().sum()).sqrt() for values in (cond, ref))
    scale = (factor * of_ref / of_cond.clamp_min(eps)).clamp_max(MAX_SCALE)
    return scale * cond, scale


def multilinear_map(features: Tensor, probs: Tensor) -> Tensor:
    """Return all products of a class's probability and a feature, of each item.

    Source: Long et al. 2018 (CDAN), arXiv:1705.10667.

    Args:
        features: [n, D] or [B, D, H, W].
        probs: [n, C] or [B, C, H, W].

    Returns:
        [n, C D] or [B, C D, H, W], class by class; float32 at least.

    Raises:
        ValueError: not the same items.
    """
    check_aligned(features, probs, ("features", "probabilities"))
    return (wide(probs)[:, :, None] * wide(features)[:, None]).flatten(1, 2)


def randomized_multilinear_map(features: Tensor, probs: Tensor, r_f: Tensor, r_g: Tensor) -> Tensor:
    """Return Q random sums of the multilinear map's products: (f R_f) * (p R_g) / sqrt(Q).

    Source: Long et al. 2018 (CDAN), arXiv:1705.10667.

    Args:
        features: [n, D] or [B, D, H, W].
        probs: [n, C] or [B, C, H, W].
        r_f: fixed standard-normal numbers, [D, Q].
        r_g: [C, Q].

    Returns:
        [n, Q] or [B, Q, H, W], float32 at least.

    Raises:
        ValueError: not the same items.
    """
    check_aligned(features, probs, ("features", "probabilities"))
    with without_autocast(features):
        sums = [
            (wide(values).movedim(1, -1) @ matrix.to(wide(values).dtype)).movedim(-1, 1)
            for values, matrix in ((features, r_f), (probs, r_g))
        ]
    return sums[0] * sums[1] / math.sqrt(r_f.shape[1])
