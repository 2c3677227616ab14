"""Sums over all processes of a training, so that several of them compute what one would."""

from typing import TypeAlias

import torch
import torch.distributed
from torch import Tensor

Group: TypeAlias = "torch.distributed.ProcessGroup | None"


def several() -> bool:
    """Return whether a process group is there."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def sum_over_processes(values: Tensor, group: Group = None) -> Tensor:
    """Return the sum of constants over processes; of one process its own.

    Args:
        values: no gradient goes through.
        group: of processes; None: all.
    """
    if not several():
        return values.detach()
    total = values.detach().clone()
    torch.distributed.all_reduce(total, group=group)
    return total


def mean_over_processes(values: Tensor, group: Group = None) -> Tensor:
    """Return the mean of constants over processes.

    A loss divided by the mean over processes of its count is, averaged over processes as gradients
    are, the mean over all items, however unequal the processes' batches.
    """
    if not several():
        return values.detach()
    return sum_over_processes(values, group) / torch.distributed.get_world_size(group)
