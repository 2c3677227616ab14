"""The fast gradient sign method: how little has to change before a classifier errs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def fgsm(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    epsilon: float,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    r"""Return pictures changed by one step that raises the loss.

    .. math:: x + \frac{\epsilon}{\sigma}\,\mathrm{sign}\,\nabla_x \mathrm{CE}(f(x), y)

    clipped to what pictures can be: no value changes by more than ``epsilon`` on the scale where
    black is 0 and white is 1. The gradient is that of the network in eval mode, without autocast,
    and of the loss in float64, so that it does not vanish where the network is sure. The network's
    mode and its parameters' gradients stay as they were. Works also under ``torch.no_grad`` and
    ``torch.inference_mode``, unless the network itself was made under the latter.

    Source: Goodfellow et al. 2015, arXiv:1412.6572, section 4.

    Args:
        model: [B, C, H, W] -> logits [B, K].
        x: preprocessed pictures, [B, C, H, W], within what pictures can be.
        target: true classes, int64 [B].
        epsilon: largest change of a picture value, in [0, 1]; 0 changes nothing.
        mean: what preprocessing subtracted from each channel, for values in [0, 1].
        std: what it then divided each channel by.

    Returns:
        Preprocessed pictures like ``x``, without a gradient.

    Raises:
        ValueError: ``epsilon`` out of range, or ``mean`` and ``std`` of another number of channels.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
        >>> _ = nn.init.constant_(model[1].weight[0], 1), nn.init.constant_(model[1].weight[1], 0)
        >>> x = torch.tensor([0.5, 0.95]).view(2, 1, 1, 1)
        >>> fgsm(model, x, torch.tensor([0, 1]), 0.1, mean=[0.0], std=[1.0]).flatten()
        tensor([0.4000, 1.0000])
    """
    if not 0 <= epsilon <= 1:  # nan too
        raise ValueError(f"epsilon must lie in [0, 1], not {epsilon!r}")
    if not len(mean) == len(std) == x.shape[1]:
        raise ValueError(
            f"mean and std must have one number for each of the {x.shape[1]} channels of x, "
            f"not {len(mean)} and {len(std)}"
        )
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        gradient = _input_gradient(model, x, target)
    finally:
        for module, mode in modes:
            module.training = mode
    m, s = (x.new_tensor(values).view(-1, 1, 1) for values in (mean, std))
    return (x.detach() + epsilon / s * gradient.sign()).clamp((0 - m) / s, (1 - m) / s)


def _input_gradient(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(x.device.type, enabled=False),
    ):
        # Clones, because autograd takes no tensors that were made in inference mode.
        x, target = x.detach().clone().requires_grad_(), target.clone()
        # A sum: each picture's gradient, whatever the batch it is in.
        loss = nn.functional.cross_entropy(model(x).double(), target, reduction="sum")
        return torch.autograd.grad(loss, x)[0]
