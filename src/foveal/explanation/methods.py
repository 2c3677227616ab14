"""Every method by its name, and the one function that they are called through."""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor, nn

from foveal.explanation.attention_rollout import last_attention, rollout
from foveal.explanation.class_activation import ACTIVATION_METHODS, activation_maps
from foveal.explanation.explanation import Explanation, explanations
from foveal.explanation.gates import read_gates
from foveal.explanation.scores import Region, Targets
from foveal.names import unknown


def explain(
    model: nn.Module,
    x: Tensor,
    method: str = "gradcam",
    target: Targets = None,
    **options: Any,
) -> list[Explanation]:
    """Return what in pictures speaks for an answer of a network.

    Args:
        model: any network with logits [B, K] or [B, K, H, W]; it is left as it was.
        x: pictures as the network wants them, [B, C, H, W].
        method: a name in :data:`METHODS`.
        target: the class to explain; one for each picture, [B]; several for each, [B, T]; ``"all"``
            classes; None: the predicted one.
        **options: of the method, such as ``layer``, ``scales`` and ``mirror`` of
            :func:`activation_maps`.

    Returns:
        One explanation for each picture and target, picture by picture; of ``gates``, for each
        picture and layer.

    Raises:
        ValueError: an unknown method, a target that the network or the method does not have, and
            what the method says.
        TypeError: an option that the method does not have.

    Example:
        >>> import torch
        >>> trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        >>> network = nn.Sequential(trunk, nn.Flatten(), nn.Linear(4, 5))
        >>> explanation, _ = explain(network, torch.rand(2, 3, 10, 12), "gradcam", target=3)
        >>> explanation.target, explanation.map.shape
        (3, torch.Size([10, 12]))
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    known = [p.name for p in signature(METHODS[method]).parameters.values()][3:]
    for option in options:
        if option not in known:
            raise TypeError(unknown(f"{method} option", option, known))
    return METHODS[method](model, x, target, **options)


def _class_activation(
    method: str,
    model: nn.Module,
    x: Tensor,
    target: Targets,
    *,
    layer: str | None = None,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
    relu: bool = True,
    region: Region = "all",
    max_channels: int | None = None,
    chunk_size: int = 32,
) -> list[Explanation]:
    found = activation_maps(
        model,
        x,
        target,
        method,
        layer=layer,
        scales=scales,
        mirror=mirror,
        relu=relu,
        region=region,
        max_channels=max_channels,
        chunk_size=chunk_size,
    )
    size = (x.shape[2], x.shape[3])
    return explanations(method, found.layer, found.maps, size, found.targets, found.scores)


def _gates(
    model: nn.Module, x: Tensor, target: None = None, *, kinds: Sequence[str] | None = None
) -> list[Explanation]:
    """Return the mean gate of each place, of each layer that has such; see :func:`read_gates`."""
    if target is not None:
        raise ValueError("gates are the same for all classes: leave target out")
    found = [(one.layer, one.map) for one in read_gates(model, x, kinds) if one.map is not None]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no gates that lie over a picture, as those of coordinate, "
            "triplet and strip attention and CBAM do: foveal.explanation.read_gates returns others"
        )
    size = (x.shape[2], x.shape[3])
    of_layers = [explanations("gates", layer, maps[:, None], size) for layer, maps in found]
    return [one for of_picture in zip(*of_layers, strict=True) for one in of_picture]


# Name → (model, x, target, **options) -> explanations, picture by picture.
METHODS: dict[str, Callable[..., list[Explanation]]] = {
    **{name: partial(_class_activation, name) for name in ACTIVATION_METHODS},
    "attention": last_attention,
    "rollout": rollout,
    "gates": _gates,
}
