"""Gradient confusion: whether the gradients of different batches pull in the same direction."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.explanation.state import keeping_state

_AT_ONCE = 2**20  # parameters whose gradients are multiplied in float64 in one step


@dataclass(frozen=True)
class GradientConfusion:
    """The cosines between the gradients of n batches.

    A step along the gradient of one batch raises the loss of every other whose cosine with it is
    negative: the fewer there are and the nearer all are to 0 or above it, the faster stochastic
    gradient descent gets on.

    Attributes:
        cosines: of the pairs (0, 1), (0, 2), ..., (n - 2, n - 1); float64 [n (n - 1) / 2] in
            [-1, 1].
        norms: Euclidean lengths of the gradients, float64 [n].
    """

    cosines: Tensor
    norms: Tensor

    @property
    def mean(self) -> float:
        """Mean of the cosines."""
        return float(self.cosines.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the cosines, that of the pairs as they are (divided by their n)."""
        return float(self.cosines.std(correction=0))

    @property
    def minimum(self) -> float:
        """Smallest cosine, that of the two batches which contradict each other most."""
        return float(self.cosines.min())

    @property
    def share_negative(self) -> float:
        """Share of the pairs with a cosine below 0."""
        return float((self.cosines < 0).double().mean())


def gradient_confusion(
    model: nn.Module,
    batches: Iterable[Sequence[Any]],
    loss: Callable[[Any, Any], Tensor] | None = None,
    *,
    most: int = 32,
    training: bool = True,
) -> GradientConfusion:
    """Compare the gradients that several batches give, at the weights that a network has.

    The gradients of all trainable parameters, one vector for each batch, stay in memory until all
    pairs are compared: 4 bytes for each parameter and batch on the CPU, so 32 batches of the 3.5
    million parameters of MobileNetV2 take 0.45 GB. Products are summed in float64.

    Afterwards the network's mode, gradients and buffers (BatchNorm's statistics among them) are
    what they were, and so are the buffers of a loss that is a module. Random numbers, such as those
    of dropout, are drawn from torch's generators.

    Source: Sankararaman et al. 2020, arXiv:1904.06963, whose confusion is measured by these
    cosines; Zhou et al. 2020, arXiv:2007.02269 (MobileNeXt), argue by it for wide maps at the ends
    of a block.

    Args:
        model: any network.
        batches: (x, target, ...) each, as loaders yield them; x a tensor, moved to the network's
            device, as a tensor of targets is. What else a batch holds is ignored.
        loss: (output, target) → a scalar; None is cross entropy.
        most: the number of batches that are looked at; ``batches`` may hold more, or never end.
        training: in training mode, so with BatchNorm's statistics of each batch and with dropout;
            False: as in evaluation.

    Raises:
        ValueError: fewer than two batches, nothing to train, or a gradient that is zero or not
            finite.

    Example:
        >>> network = nn.Linear(4, 3)
        >>> batches = [(torch.rand(8, 4), torch.arange(8) % 3) for _ in range(5)]
        >>> found = gradient_confusion(network, batches)
        >>> found.cosines.shape, -1 <= found.minimum <= found.mean <= 1
        (torch.Size([10]), True)
    """
    if most < 2:
        raise ValueError(f"most must be at least 2 batches, not {most}")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("no parameter of the network is trainable: there are no gradients")
    loss = F.cross_entropy if loss is None else loss
    states = nn.ModuleList([model, *([loss] if isinstance(loss, nn.Module) else [])])
    gradients: list[Tensor] = []
    with keeping_state(states, training=training), torch.enable_grad():
        for x, target, *_ in islice(batches, most):
            device = parameters[0].device
            target = target.to(device) if isinstance(target, Tensor) else target
            value = loss(model(x.to(device)), target)
            gradients.append(_flat_gradient(value, parameters, len(gradients)))
    if len(gradients) < 2:
        raise ValueError(f"at least two batches are needed to compare, not {len(gradients)}")
    products = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for start in range(0, len(gradients[0]), _AT_ONCE):
        part = torch.stack([g[start : start + _AT_ONCE] for g in gradients]).double()
        products += part @ part.T
    norms = products.diagonal().sqrt()
    rows, columns = torch.triu_indices(len(gradients), len(gradients), 1)
    cosines = products[rows, columns] / (norms[rows] * norms[columns])
    return GradientConfusion(cosines.clamp(-1, 1), norms)


def _flat_gradient(value: Tensor, parameters: Sequence[nn.Parameter], batch: int) -> Tensor:
    """Return the gradient of a scalar, float32 on the CPU, one number for each parameter.

    Raises:
        ValueError: it is zero or not finite.
    """
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    flat = torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).detach().flatten().to("cpu", torch.float32)
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )
    if not flat.isfinite().all():
        raise ValueError(f"the gradient of batch {batch} is not finite")
    if not flat.any():
        raise ValueError(f"the gradient of batch {batch} is zero: it has no direction")
    return flat
