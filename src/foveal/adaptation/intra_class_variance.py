"""How far items are from the prototypes that their predictions name."""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor
from torch.nn.functional import cosine_similarity

from foveal.adaptation.precision import wide
from foveal.names import unknown

VarianceMode = Literal["norm", "sq", "mse", "cos"]


def intra_class_variance(
    features: Tensor,
    representation: Tensor,
    mode: VarianceMode = "norm",
    reference: Tensor | None = None,
    weight: Tensor | None = None,
    across: Callable[[Tensor], Tensor] = Tensor.detach,
) -> Tensor:
    """Return the mean distance of features from their prototypical representation.

    The gradient reaches both. The abstract of PANDA, arXiv:2003.13274v2, names the loss; its form
    is foveal's.

    Args:
        features: [n, D] or [B, D, H, W].
        representation: of the same shape, of
            :func:`~foveal.adaptation.functional.prototypical_representation`.
        mode: ``sq``: squared distance; ``norm``: that over the mean squared norm of ``reference``,
            so that the scale of features does not matter; ``mse``: over D; ``cos``: 1 - cosine.
        reference: of ``norm`` alone, a constant: the source's features [m, D] or [M, D, H, W];
            None: ``features``.
        weight: of items, [n] or [B, H, W], at least 0; None: all alike.
        across: what makes counts and norms those of all processes; alone, they are as they are.

    Returns:
        [], float32 at least; 0 of an empty batch.

    Raises:
        ValueError: an unknown mode, or shapes that differ.
    """
    if mode not in get_args(VarianceMode):
        raise ValueError(unknown("mode of the variance", str(mode), get_args(VarianceMode)))
    if features.shape != representation.shape:
        raise ValueError(
            f"features and representation must have one shape, not {list(features.shape)} and "
            f"{list(representation.shape)}"
        )
    features, representation = wide(features), wide(representation)
    if mode == "cos":
        distance = 1 - cosine_similarity(features, representation, dim=1)
    else:
        distance = (features - representation).square().sum(1)
    if weight is not None and weight.shape != distance.shape:
        raise ValueError(f"weight must be {list(distance.shape)}, not {list(weight.shape)}")
    loss = _mean(distance, weight, across)
    if mode == "mse":
        return loss / features.shape[1]
    if mode == "norm":
        scale = wide(features if reference is None else reference).detach().square().sum(1)
        # A mean of both counts over processes, so that their ratio is exact.
        return loss / (across(scale.sum()) / _count(scale, across)).clamp_min(1e-12)
    return loss


def _mean(values: Tensor, weight: Tensor | None, across: Callable[[Tensor], Tensor]) -> Tensor:
    if weight is None:
        return values.sum() / _count(values, across)
    total = across(weight.to(values).sum())
    return (weight.to(values) * values).sum() / total.where(total > 0, 1)


def _count(values: Tensor, across: Callable[[Tensor], Tensor]) -> Tensor:
    count = across(values.new_full((), values.numel()))
    return count.where(count > 0, 1)
