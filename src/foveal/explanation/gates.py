"""What attention lets through: the gates of a network's layers, read while it works."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.cbam import CbamModule
from timm.layers.squeeze_excite import SEModule
from timm.models import _efficientnet_blocks
from torch import Tensor, nn

from foveal.explanation.state import keeping_state
from foveal.layers import (
    CoordinateAttention,
    ReAttention,
    SelectiveIntegration,
    StripPooling,
    TripletAttention,
)
from foveal.layers.selective_integration import largest
from foveal.names import unknown

timm_blocks: Any = _efficientnet_blocks  # annotated too sparsely for the type checker


@dataclass(frozen=True)
class Gates:
    """What one layer lets through, for a batch; float32, on the CPU.

    ====================  ==========================================================  =========
    kind                  parts                                                       averages
    ====================  ==========================================================  =========
    ``coordinate``        ``rows`` [B, C, h], ``columns`` [B, C, w]                   all three
    ``triplet``           ``cw`` [B, C, w], ``hc`` [B, C, h], ``hw`` [B, h, w] if     all three
                          there is one
    ``strip``             ``channels`` [B, C], means over the places                  map
    ``cbam``              ``channels`` [B, C], ``places`` [B, h, w]                   map
    ``se``                ``channels`` [B, C]                                         none
    ``selection``         per task ``TASK`` [B, levels], weights before the           none
                          selection, and ``TASK_selected``, 1 where it is selected
    ``reattention``       ``theta`` [H, H], row = mixed map, column = the softmax     none
                          map that it takes; ``bias`` [H]; the same for all pictures
    ====================  ==========================================================  =========

    All but theta and its bias lie in [0, 1]. The gate of strip pooling, [B, C, h, w], is as large
    as the map that it gates and therefore averaged: ``layer.gate(x)`` returns it whole.

    Attributes:
        layer: the layer's name in the network.
        kind: one of :data:`GATE_KINDS`.
        rows: mean over channels of the gates of each row, [B, h].
        columns: likewise of each column, [B, w].
        map: mean over channels of what each place is multiplied by, [B, h, w].
        parts: name → the gates themselves.
    """

    layer: str
    kind: str
    rows: Tensor | None = None
    columns: Tensor | None = None
    map: Tensor | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def read_gates(model: nn.Module, x: Tensor, kinds: Sequence[str] | None = None) -> list[Gates]:
    """Run a network once, in evaluation mode, and return the gates of its layers.

    Layers are found wherever they are in the network, those that :func:`foveal.insert` put there
    too; of squeeze-and-excitation and CBAM, timm's layers count as well.

    Args:
        model: any network. Its mode, statistics and hooks are the same afterwards; a compiled one
            runs eagerly.
        x: pictures as the network wants them, [B, C, H, W].
        kinds: some of :data:`GATE_KINDS`; None: all.

    Returns:
        One entry for each time that a layer runs, in this order; empty for a network without such
        a layer, which is not run.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> from foveal.layers import StripPooling, TripletAttention
        >>> network = nn.Sequential(TripletAttention(), StripPooling(8))
        >>> for gates in read_gates(network, torch.rand(2, 8, 5, 7)):
        ...     print(gates.layer, gates.kind, tuple(gates.map.shape), list(gates.parts))
        0 triplet (2, 5, 7) ['cw', 'hc', 'hw']
        1 strip (2, 5, 7) ['channels']
    """
    for kind in kinds or ():
        if kind not in GATE_KINDS:
            raise ValueError(unknown("kind of gates", kind, GATE_KINDS))
    found: list[Gates] = []

    def hook(
        name: str, kind: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        _, read = _LAYERS[kind]
        values = read(layer, *args, **kwargs)
        if values is not None:
            found.append(Gates(name, kind, **values))

    handles = [
        module.register_forward_pre_hook(partial(hook, name, kind), with_kwargs=True)
        for name, module in model.named_modules()
        for kind, (types, _) in _LAYERS.items()
        if isinstance(module, types) and (kinds is None or kind in kinds)
    ]
    try:
        if handles:
            # A compiled network would run without the hooks.
            with keeping_state(model, training=False), torch.compiler.set_stance("force_eager"):
                model(x.clone())  # which the network may change in place
    finally:
        for handle in handles:
            handle.remove()
    return found


def coordinate_gates(model: nn.Module, x: Tensor) -> list[Gates]:
    """Return the gates of every coordinate attention layer, in the order of execution.

    Args:
        model: any network, as for :func:`read_gates`.
        x: pictures as the network wants them, [B, C, H, W].

    Returns:
        One entry per layer; empty for a network without such a layer.

    Example:
        >>> (gates,) = coordinate_gates(CoordinateAttention(8), torch.rand(2, 8, 5, 7))
        >>> gates.rows.shape, gates.columns.shape, gates.map.shape
        (torch.Size([2, 5]), torch.Size([2, 7]), torch.Size([2, 5, 7]))
    """
    return read_gates(model, x, ("coordinate",))


def gate_arrays(gates: Sequence[Gates]) -> dict[str, NDArray[np.float32]]:
    """Return gates as arrays under one name each, as :func:`numpy.savez` takes them.

    The names are ``LAYER/rows``, ``LAYER/columns`` and ``LAYER/map`` for the averages that there
    are, and ``LAYER/parts/PART``; a layer that runs again is ``LAYER#2``, and so on.

    Example:
        >>> gates = read_gates(StripPooling(8), torch.rand(2, 8, 5, 7))
        >>> {name: array.shape for name, array in gate_arrays(gates).items()}
        {'/map': (2, 5, 7), '/parts/channels': (2, 8)}
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    runs: Counter[str] = Counter()
    for one in gates:
        runs[one.layer] += 1
        name = one.layer if runs[one.layer] == 1 else f"{one.layer}#{runs[one.layer]}"
        averages = {"rows": one.rows, "columns": one.columns, "map": one.map}
        values = {key: value for key, value in averages.items() if value is not None}
        values |= {f"parts/{key}": value for key, value in one.parts.items()}
        arrays |= {f"{name}/{key}": value.numpy() for key, value in values.items()}
    return arrays


def _coordinate(layer: CoordinateAttention, x: Tensor) -> dict[str, Any]:
    gate_h, gate_w = (_kept(gate) for gate in layer.gates(x))
    return {
        "rows": gate_h.mean((1, 3)),
        "columns": gate_w.mean((1, 2)),
        "map": torch.einsum("bch,bcw->bhw", gate_h[..., 0], gate_w[:, :, 0]) / x.shape[1],
        "parts": {"rows": gate_h[..., 0], "columns": gate_w[:, :, 0]},
    }


def _triplet(layer: TripletAttention, x: Tensor) -> dict[str, Any]:
    gate_w, gate_h, gate_hw = layer.gates(x)
    parts = {"cw": _kept(gate_w)[:, :, 0], "hc": _kept(gate_h)[..., 0]}
    rows, columns = parts["hc"].mean(1), parts["cw"].mean(1)
    mean = rows[:, :, None] + columns[:, None]
    if gate_hw is not None:
        parts["hw"] = _kept(gate_hw)[:, 0]
        mean = mean + parts["hw"]
    return {"rows": rows, "columns": columns, "map": mean / len(parts), "parts": parts}


def _strip(layer: StripPooling, x: Tensor) -> dict[str, Any]:
    gate = layer.gate(x).float()
    return {"map": _kept(gate.mean(1)), "parts": {"channels": _kept(gate.mean((2, 3)))}}


def _squeeze_excite(layer: Any, x: Tensor) -> dict[str, Any]:
    (gate,) = _outputs((layer.gate,), partial(layer.forward, x))
    return {"parts": {"channels": gate[..., 0, 0]}}


def _cbam(layer: Any, x: Tensor) -> dict[str, Any]:
    modules = (layer.channel.gate, layer.spatial.gate)
    channels, places = _outputs(modules, partial(layer.forward, x))
    channels, places = channels[..., 0, 0], places[:, 0]
    return {
        "map": channels.mean(1)[:, None, None] * places,
        "parts": {"channels": channels, "places": places},
    }


def _selection(
    layer: SelectiveIntegration,
    levels: Sequence[Tensor],
    tasks: Sequence[str] | None = None,
) -> dict[str, Any] | None:
    if layer.selected is None:
        return None
    parts = {}
    for task, weights in layer.gates(levels, tasks).items():
        parts[task] = _kept(weights)
        parts[f"{task}_selected"] = _kept(largest(weights, layer.selected) > 0)
    return {"parts": parts}


def _re_attention(layer: ReAttention, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
    if not layer.apply_transform:
        return None
    matrix = layer.reatten_matrix
    return {"parts": {"theta": _kept(matrix.weight)[:, :, 0, 0], "bias": _kept(matrix.bias)}}


def _outputs(modules: Sequence[nn.Module], run: Callable[[], object]) -> list[Tensor]:
    """Return what each of some modules, none of which runs twice, returns during a run."""
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        found[module] = _kept(output)

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return [found[module] for module in modules]


def _kept(value: Tensor) -> Tensor:
    """Return float32 numbers on the CPU that later changes of the network do not reach."""
    return value.detach().to("cpu", torch.float32, copy=True)


# Kind → the layers, and what reads them from their input. A module is of one kind only.
_LAYERS: dict[str, tuple[tuple[type[nn.Module], ...], Callable[..., dict[str, Any] | None]]] = {
    "coordinate": ((CoordinateAttention,), _coordinate),
    "triplet": ((TripletAttention,), _triplet),
    "strip": ((StripPooling,), _strip),
    "se": ((SEModule, timm_blocks.SqueezeExcite), _squeeze_excite),
    "cbam": ((CbamModule,), _cbam),
    "selection": ((SelectiveIntegration,), _selection),
    "reattention": ((ReAttention,), _re_attention),
}
GATE_KINDS = tuple(_LAYERS)
