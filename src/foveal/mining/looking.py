"""A classifier looked at while it mines: in evaluation mode, its outputs in full precision."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from foveal.explanation.state import keeping_state


def looking(model: object) -> AbstractContextManager[None]:
    """Bring a network into evaluation mode for a while; a plain function is left alone."""
    return keeping_state(model, training=False) if isinstance(model, nn.Module) else nullcontext()


def wide(values: Tensor) -> Tensor:
    """Return float32, of float64 the same."""
    return values if values.dtype == torch.float64 else values.float()


def check_outputs(logits: Tensor, cams: Tensor, pictures: int, classes: int) -> None:
    """Raise ValueError unless a network gave logits and activations of all pictures and classes."""
    expected = (pictures, classes)
    if logits.shape != expected or cams.ndim != 4 or cams.shape[:2] != expected:
        raise ValueError(
            f"the model must return logits {list(expected)} and activations "
            f"{[*expected, 'h', 'w']}, not {list(logits.shape)} and {list(cams.shape)}"
        )
