"""Size and arithmetic of a network, counted without computing anything."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Counts:
    """What a network costs.

    Attributes:
        parameters: trained numbers, buffers excluded.
        multiply_adds: multiplications with addition in convolutions, matrix products and
            attention, for one input; the rest (means, gates, activations) is not counted.
    """

    parameters: int
    multiply_adds: int


def count(model: nn.Module, input_size: tuple[int, int, int]) -> Counts:
    """Count the parameters and, in evaluation mode, the multiply-adds for one input.

    Args:
        model: any network on any device; it is not changed, and its weights are not copied.
        input_size: (C, H, W) of the input.

    Example:
        >>> count(nn.Conv2d(3, 8, 3, padding=1, bias=False), (3, 10, 10))
        Counts(parameters=216, multiply_adds=21600)
    """
    counter = FlopCounterMode(display=False)
    with counter:
        run_on_meta(model, input_size)
    parameters = sum(p.numel() for p in model.parameters())
    # torch counts a multiply-add as two operations.
    return Counts(parameters, counter.get_total_flops() // 2)


def run_on_meta(model: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Run the model in evaluation mode on shapes only: no memory, no arithmetic, no change to it.

    Args:
        model: any network.
        input_size: (C, H, W).

    Raises:
        Exception: whatever the network raises for an input of this size.
    """
    was_training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        # Tensors that a network makes on the way belong with the others.
        with torch.inference_mode(False), torch.no_grad(), torch.device("meta"):
            tensors = [*model.named_parameters(), *model.named_buffers()]
            shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
            kinds = [t.dtype for _, t in tensors if t.is_floating_point()]
            x = torch.empty((1, *input_size), dtype=kinds[0] if kinds else None)
            functional_call(model, shapes, (x,))
    finally:
        for module in was_training:
            module.training = True
