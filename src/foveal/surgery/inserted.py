"""A layer that acts on another module's output, without renaming or wrapping that module.

The host keeps its class, its name and its keys: the new layer is a child called ``inserted`` and a
forward hook applies it. Containers that run their children in turn need two exceptions, both here.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

NAME = "inserted"
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Inserted(nn.Module):
    """A layer on a map that keeps its shape, with or without a start at identity.

    Without ``identity`` it is ``layer(x)``. With it, x + scale * (layer(x) - x), where ``scale``
    is learned, one number per channel, and 0 at the start: then the output is x, to the last bit
    of every finite number, the scale has a gradient at once and the layer has one as soon as the
    scale has moved. (Gates pushed open by a large bias would be close to x only, and would have
    hardly any gradient.)

    Args:
        layer: [B, C, H, W] -> the same shape. Its keys stay its own, under ``layer.``.
        channels: C.
        identity: start at identity.
        device: where the scale is made.
        dtype: type of the scale.

    Attributes:
        bypassed: pass the map on as it is, as if nothing were inserted; False.

    Shape:
        input [B, C, H, W]; output the same, in the input's type.
    """

    def __init__(
        self,
        layer: nn.Module,
        channels: int,
        *,
        identity: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.scale = (
            nn.Parameter(torch.empty(channels, device=device, dtype=dtype)) if identity else None
        )
        self.bypassed = False
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Go back to the start at identity; the layer's own weights stay."""
        if self.scale is not None:
            nn.init.zeros_(self.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map after the layer, [B, C, H, W]."""
        if self.bypassed:
            return x
        y: torch.Tensor = self.layer(x)
        if self.scale is None:
            return y
        return x + self.scale.to(x.dtype)[:, None, None] * (y - x)


@contextmanager
def bypassing(layers: Iterable[Inserted]) -> Iterator[None]:
    """Let inserted layers pass their maps on as they are."""
    acting = [layer for layer in layers if not layer.bypassed]
    for layer in acting:
        layer.bypassed = True
    try:
        yield
    finally:
        for layer in acting:
            layer.bypassed = False


def attach(model: nn.Module, name: str, inserted: Inserted) -> Callable[[], None]:
    """Let ``inserted`` act on the output of the module called ``name``.

    Args:
        model: changed in place.
        name: of a module in ``model.named_modules()``.
        inserted: the layer; it becomes a child of that module, or of the nearest one around it
            that does not run its children in turn.

    Returns:
        What takes the layer out again.

    Raises:
        ValueError: no module around can hold it.
    """
    host = model.get_submodule(name)
    if type(host).forward is nn.Sequential.forward:
        # A child at its end is run after all others: by the container itself, and also where it
        # is run child by child, as in gradient checkpointing.
        key = _free_name(host, NAME)
        host.add_module(key, inserted)
        return lambda: delattr(host, key)
    path = name.split(".")
    for length in range(len(path), -1, -1):
        holder = model.get_submodule(".".join(path[:length]))
        if not isinstance(holder, _CONTAINERS):
            break
    else:
        raise ValueError(
            f"nothing can be inserted after {name!r}: it and all modules around it run whatever "
            "children they have; put the network into a module of its own class first"
        )
    key = _free_name(holder, "_".join([NAME, *path[length:]]))
    holder.add_module(key, inserted)
    # By name where that is possible, so that copies of the host for other devices use their own.
    act = partial(_apply_child, key) if holder is host else partial(_apply, inserted)
    hook = host.register_forward_hook(act)

    def detach() -> None:
        hook.remove()
        delattr(holder, key)

    return detach


def layers_after(host: nn.Module) -> list[Inserted]:
    """Return the inserted layers that act on a module's output, in their order."""
    if type(host).forward is nn.Sequential.forward:
        return [child for child in host.children() if isinstance(child, Inserted)]
    hooks = [hook for hook in host._forward_hooks.values() if isinstance(hook, partial)]
    found = [getattr(host, h.args[0]) for h in hooks if h.func is _apply_child]
    return found + [h.args[0] for h in hooks if h.func is _apply]


def inserted_layers(model: nn.Module) -> dict[str, Inserted]:
    """Return the inserted layers of a network by their names."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Inserted)}


def holds_inserted(key: str) -> bool:
    """Tell whether a state_dict key belongs to an inserted layer, or to re-attention."""
    return any(
        part in (NAME, "reatten_matrix") or part.startswith(f"{NAME}_") for part in key.split(".")
    )


def _apply_child(key: str, host: nn.Module, args: Any, output: torch.Tensor) -> Any:
    return getattr(host, key)(output)


def _apply(inserted: Inserted, host: nn.Module, args: Any, output: torch.Tensor) -> Any:
    return inserted(output)


def _free_name(holder: nn.Module, wanted: str) -> str:
    """Return ``wanted``, or with a number from 2 on if the holder has such a child already."""
    name, number = wanted, 1
    while hasattr(holder, name):
        number += 1
        name = f"{wanted}_{number}"
    return name
