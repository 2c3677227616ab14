"""Insertion of layers into finished networks, with their trained weights kept.

A network with an inserted layer is trained, saved, copied and exported like any other; the config
of a run holds the insertion, so that its network can be built again.
"""

from typing import Any, cast

import torch
from torch import nn

from foveal.layers import LAYERS, create_layer
from foveal.models.counting import Counts, count
from foveal.models.input_size import checked_size
from foveal.names import unknown
from foveal.surgery.inserted import Inserted, holds_inserted, inserted_layers, layers_after
from foveal.surgery.places import RULES, Place, Where, find_places
from foveal.surgery.replaced import REATTENTION, replace_attention
from foveal.surgery.report import InsertionReport, Latency

__all__ = [
    "REATTENTION",
    "RULES",
    "Inserted",
    "InsertionReport",
    "Latency",
    "Place",
    "find_places",
    "holds_inserted",
    "insert",
    "inserted_layers",
    "replace_attention",
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
        layer: a shape-preserving layer of :func:`foveal.layers.create_layer`; or ``reattention``,
            which takes the place of attention modules, see
            :func:`foveal.surgery.replaced.replace_attention`.
        where: after which modules. A rule: ``blocks`` (every residual block's output), ``stages``
            (the last block of each stage) or ``expand`` (in each block after its widest
            convolution with norm and activation; in an inverted residual that is before the
            projection); in a network that has a ``backbone``, they look at that alone. Or a pattern
            over ``model.named_modules()`` in which ``*`` does not cross a dot: ``layer[34].*`` are
            the blocks of two stages of a ResNet. Or a function (name, module) -> bool. Layers that
            were inserted before are looked through.
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
    _check_network(model)
    if layer == REATTENTION:
        return replace_attention(
            model, where=where, identity=identity, input_size=input_size, **layer_args
        )
    _check_arguments(layer, identity, layer_args)
    size = checked_size(model, input_size)
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
        notes=_notes(model, layer, places, layers),
    )
    try:
        report.apply()
        report.after = _count_with_layers(model, report)
    except BaseException:
        report.undo()
        raise
    return report


def _check_network(model: nn.Module) -> None:
    """Do nothing if layers can be put into the network.

    Raises:
        TypeError: it is none.
        ValueError: it is wrapped or compiled.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the network must be a torch.nn.Module, not {type(model).__name__}")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        kind = type(model).__name__
        raise ValueError(f"insert into the network inside {kind}, model.module, before wrapping it")
    if any(module._compiled_call_impl is not None for module in model.modules()) or isinstance(
        model, torch._dynamo.OptimizedModule
    ):
        raise ValueError(
            "the network is compiled, and its compiled form would pass new layers by: insert first,"
            " then compile"
        )


def _check_arguments(layer: str, identity: bool, layer_args: dict[str, Any]) -> None:
    """Do nothing if there is such a layer and it takes the arguments.

    Raises:
        ValueError: there is none, or it refuses a value.
        TypeError: an argument of a wrong name or type.
    """
    if not isinstance(layer, str):
        raise TypeError(f"layer must be a name, such as 'coordinate', not {layer!r}")
    if not isinstance(identity, bool):
        raise TypeError(f"identity must be True or False, not {identity!r}")
    for key in ("name", "channels", "device", "dtype"):
        if key in layer_args:
            raise TypeError(f"the layer's {key} cannot be given: the network decides it")
    if layer not in LAYERS:
        raise ValueError(unknown("layer", layer, (*LAYERS, REATTENTION)))
    create_layer(layer, 8, device="meta", **layer_args)


def _notes(
    model: nn.Module, layer: str, places: tuple[Place, ...], layers: tuple[Inserted, ...]
) -> tuple[str, ...]:
    """Say where there is a layer of the same kind already."""
    twice = [
        place.name
        for place, new in zip(places, layers, strict=True)
        if any(
            type(old.layer) is type(new.layer)
            for old in layers_after(model.get_submodule(place.name))
        )
    ]
    if not twice:
        return ()
    return (f"there was a layer {layer} already after {', '.join(twice)}: now both act",)


def _count_with_layers(model: nn.Module, report: InsertionReport) -> Counts:
    """Run the network on shapes, see that each new layer acts once, and return what it costs."""
    calls = dict.fromkeys(report.layers, 0)

    def called(layer: nn.Module, args: Any) -> None:
        calls[cast(Inserted, layer)] += 1

    hooks = [layer.register_forward_pre_hook(called) for layer in report.layers]
    try:
        counts = count(model, report.input_size)
    finally:
        for hook in hooks:
            hook.remove()
    for place, layer in zip(report.places, report.layers, strict=True):
        if calls[layer] != 1:
            raise ValueError(
                f"the layer after {place.name!r} would act {calls[layer]} times: "
                f"{type(model.get_submodule(place.name)).__name__} runs its children in a way of "
                "its own; name a module inside or around it"
            )
    return counts


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
