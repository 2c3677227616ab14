"""A network lent for a look at it: what it was before, it is again afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def keeping_state(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Bring a network into a mode; afterwards put each module's mode and all buffers back.

    Autocast's copies of the weights are made anew and not kept: without derivatives they would
    spoil a training step of the caller's.

    Args:
        model: the network; its buffers, such as BatchNorm's statistics, are copied in training
            mode only, as nothing changes them in evaluation.
        training: the mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if training else []
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    model.train(training)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
