"""What coordinate attention lets through: its gates, read from a network at work."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foveal.layers import CoordinateAttention


@dataclass(frozen=True)
class Gates:
    """The gates of one layer for a batch, averaged over channels.

    Attributes:
        layer: the layer's name in the network.
        rows: one value per row of the feature map, [B, H] in (0, 1).
        columns: one value per column, [B, W] in (0, 1).
        map: mean over channels of row gate times column gate, [B, H, W] in (0, 1).
    """

    layer: str
    rows: Tensor
    columns: Tensor
    map: Tensor


@torch.no_grad()
def coordinate_gates(model: nn.Module, x: Tensor) -> list[Gates]:
    """Return the gates of every coordinate attention layer, in the order of execution.

    Args:
        model: any network; it is run once, in the mode it is in.
        x: pictures as the network wants them, [B, C, H, W].

    Returns:
        One entry per layer; empty for a network without such a layer.

    Example:
        >>> from foveal.layers import CoordinateAttention
        >>> (gates,) = coordinate_gates(CoordinateAttention(8).eval(), torch.rand(2, 8, 5, 7))
        >>> gates.rows.shape, gates.columns.shape, gates.map.shape
        (torch.Size([2, 5]), torch.Size([2, 7]), torch.Size([2, 5, 7]))
    """
    found: list[Gates] = []

    def read(name: str) -> Any:
        def hook(layer: CoordinateAttention, inputs: tuple[Tensor]) -> None:
            gate_h, gate_w = (gate.float() for gate in layer.gates(inputs[0]))
            found.append(
                Gates(
                    layer=name,
                    rows=gate_h.mean((1, 3)).cpu(),
                    columns=gate_w.mean((1, 2)).cpu(),
                    map=(gate_h * gate_w).mean(1).cpu(),
                )
            )

        return hook

    handles = [
        module.register_forward_pre_hook(read(name))
        for name, module in model.named_modules()
        if isinstance(module, CoordinateAttention)
    ]
    try:
        if handles:
            # A compiled network would run without the hooks.
            with torch.compiler.set_stance("force_eager"):
                model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found
