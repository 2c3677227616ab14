"""Arithmetic in float32 at least, whatever the network runs in."""

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """Return float32 of half precision, and wider types as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def without_autocast(values: Tensor) -> torch.autocast:
    """Return a context in which products on the device of ``values`` keep their precision."""
    return torch.autocast(values.device.type, enabled=False)
