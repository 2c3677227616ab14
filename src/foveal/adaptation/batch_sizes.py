"""Batches that a network cannot be trained with."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def check_batch_sizes(network: nn.Module, n_source: int, n_target: int, *, joint: bool) -> None:
    """Raise ValueError for a batch without items, or of one for BatchNorm, before the network runs.

    BatchNorm in training mode has no variance of one item, unless that is a map of many positions:
    a pooled or flat item is none, so that one picture is refused whatever comes before.

    Args:
        network: that will be run.
        n_source: items of the source.
        n_target: items of the target.
        joint: both go through in one forward pass; otherwise each alone.
    """
    for domain, count in (("source", n_source), ("target", n_target)):
        if count < 1:
            raise ValueError(f"the batch of the {domain} domain is empty")
    norms = [
        name for name, m in network.named_modules() if isinstance(m, _BatchNorm) and m.training
    ]
    if not norms or joint:
        return
    for domain, count in (("source", n_source), ("target", n_target)):
        if count == 1:
            raise ValueError(
                f"the batch of the {domain} domain has one item, of which BatchNorm ({norms[0]}) "
                "has no variance: take at least 2"
            )
