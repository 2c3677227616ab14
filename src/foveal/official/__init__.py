"""Networks from the checkpoints that the papers' authors published.

One module for each source repository, with ``DESCRIPTION``, ``recognise(state) -> bool`` and
``build(state, **hints) -> nn.Module``; a new one is a line in ``_SOURCES``.
"""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from foveal.models.checkpoints import find_state_dict, read_checkpoint
from foveal.names import unknown
from foveal.official import (
    coordinate_attention,
    deepvit,
    dfi,
    mobilenext,
    noun,
    spnet,
    triplet_attention,
)

__all__ = ["load_official"]

_SOURCES = (coordinate_attention, triplet_attention, mobilenext, spnet, dfi, deepvit, noun)


def load_official(
    checkpoint: str | Path | Mapping[str, Any], *, ema: bool = True, **hints: Any
) -> nn.Module:
    """Build the network that an official checkpoint belongs to and load it, whole.

    Args:
        checkpoint: a .pth, .pth.tar or .safetensors file of the authors' code, or what it holds:
            a state_dict, or a dict with one inside (``state_dict``, ``model``, ...), with or
            without ``module.`` prefixes and an optimiser's state beside it. Files are read
            without running code in them.
        ema: take the averaged weights where the checkpoint holds them beside the trained ones, as
            timm does; False takes the trained ones.
        **hints: what the weights do not tell; each source's ``build`` names its own, such as
            ``stride`` for a single block.

    Returns:
        The network, in evaluation mode. Its widths and classes are those of the shapes.

    Raises:
        OSError: no such file.
        ValueError: the file is damaged or holds other objects than weights, the source is not
            known, or keys or shapes do not fit; the message lists which.
        TypeError: an unknown hint.
    """
    path = checkpoint if isinstance(checkpoint, (str, Path)) else None
    state = find_state_dict(read_checkpoint(path) if path else checkpoint, ema=ema)
    for source in _SOURCES:
        if source.recognise(state):
            known = [name for name in signature(source.build).parameters if name != "state"]
            for hint in hints:
                if hint not in known:
                    raise TypeError(unknown("hint", hint, known))
            network: nn.Module = source.build(state, **hints)
            return network.eval()
    raise ValueError(
        f"the checkpoint with keys such as {next(iter(state))!r} is of no source known here; "
        f"known are {'; '.join(source.DESCRIPTION for source in _SOURCES)}"
    )
