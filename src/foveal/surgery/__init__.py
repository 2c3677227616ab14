"""Insertion of layers into finished networks, with their trained weights kept.

A network with an inserted layer is trained, saved, copied and exported like any other; the config
of a run holds the insertion, so that its network can be built again.
"""

from typing import Any

import torch
from torch import nn

from foveal.layers import create_layer
from foveal.models.counting import count
from foveal.surgery.inserted import Inserted, attach, holds_inserted, inserted_layers
from foveal.surgery.places import RULES, Place, Where, find_places
from foveal.surgery.report import InsertionReport, Latency

__all__ = [
    "RULES",
    "Inserted",
    "InsertionReport",
    "Latency",
    "Place",
    "attach",
    "find_places",
    "holds_inserted",
    "insert",
    "inserted_layers",
]


def insert(
    model: nn.Module,
    layer: str,
    *,
    where: Where,
    identity: bool = False,
    input_size: tuple[int, int, int] | None = None,
    **layer_args: Any,
) -> InsertionReport:
    """Put a layer after modules of a finished network, in place; its weights stay.

    Everything is looked up and tried on shapes alone first; if anything is wrong, the network
    stays as it was. New keys in the state_dict are ``HOST.inserted.layer.*``, with the layer's own
    names, and ``HOST.inserted.scale``; all other keys stay as they are.

    Args:
        model: any timm, torchvision or other network of maps [B, C, H, W], on any device.
        layer: a shape-preserving layer of :func:`foveal.layers.create_layer`.
        where: after which modules. A rule: ``blocks`` (every residual block's output), ``stages``
            (the last block of each stage) or ``expand`` (in each block after its widest
            convolution with norm and activation, before the projection). Or a pattern over
            ``model.named_modules()`` in which ``*`` does not cross a dot: ``layer[34].*`` are the
            blocks of two stages of a ResNet. Or a function (name, module) -> bool.
        identity: start as x + scale * (layer(x) - x) with a learned scale of 0 per channel, so
            that the network computes what it computed before until it is trained. Otherwise the
            new layer acts with its random weights at once.
        input_size: (C, H, W) of the pictures; None takes what the network says of itself, else
            224 by 224.
        **layer_args: arguments of the layer, such as ``reduction``.

    Returns:
        The report: ``str()`` is a table of places and costs, ``undo()`` takes the layers out.

    Raises:
        ValueError: an unknown layer, no match (the nearest names are given), nested matches, an
            output that is no map, such as a stream of tokens, or a network that does not run at
            ``input_size``.
        TypeError: an argument that the layer does not have.

    Example:
        >>> import timm
        >>> model = timm.create_model("resnet18")
        >>> report = insert(model, "coordinate", where="layer[34].*", identity=True)
        >>> [place.name for place in report.places]
        ['layer3.0', 'layer3.1', 'layer4.0', 'layer4.1']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the network must be a torch.nn.Module, not {type(model).__name__}")
    create_layer(layer, 8, device="meta", **layer_args)  # its name and arguments, first of all
    size = _input_size(model) if input_size is None else input_size
    if min(size) < 1:
        raise ValueError(f"input_size must be (C, H, W) of at least 1 each, not {size}")
    places = tuple(find_places(model, where, size))
    before = count(model, size)
    layers = tuple(
        _new_layer(model, place, layer, identity=identity, **layer_args) for place in places
    )
    report = InsertionReport(
        model,
        layer=layer,
        layer_args=layer_args,
        where=where if isinstance(where, str) else getattr(where, "__name__", repr(where)),
        identity=identity,
        input_size=size,
        places=places,
        layers=layers,
        before=before,
    )
    try:
        report.after = count(model, size)  # runs it on shapes, with the layers
    except Exception:
        report.undo()
        raise
    return report


def _new_layer(
    model: nn.Module, place: Place, layer: str, *, identity: bool, **layer_args: Any
) -> Inserted:
    """Return the layer for a place: on its host's device, in its type and mode."""
    host = model.get_submodule(place.name)
    weights = (w for m in (host, model) for w in m.parameters() if w.is_floating_point())
    weight = next(weights, torch.empty(0))
    kind: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    new = create_layer(layer, place.channels, **kind, **layer_args)
    return Inserted(new, place.channels, identity=identity, **kind).train(host.training)


def _input_size(model: nn.Module) -> tuple[int, int, int]:
    """Return what the network says that it takes, with the channels of its first convolution."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    channels, height, width = config.get("input_size", (3, 224, 224))
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return (first.in_channels if first is not None else channels, height, width)
