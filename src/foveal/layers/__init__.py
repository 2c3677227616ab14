"""Operators on feature maps; each file can be copied into another project on its own."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import foveal.torchvision_check  # noqa: F401  (before timm)
from foveal.layers.attention_maps import (
    attention_maps,
    has_attention_maps,
    reading_attention_maps,
)
from foveal.layers.channel_attention import CBAM, SqueezeExcite
from foveal.layers.coordinate_attention import CoordinateAttention
from foveal.layers.mixed_pooling import MixedPooling
from foveal.layers.pyramid_pooling import PyramidPooling
from foveal.layers.re_attention import ReAttention
from foveal.layers.sandglass import SandglassBlock
from foveal.layers.selective_integration import SelectiveIntegration
from foveal.layers.strip_pooling import StripPooling
from foveal.layers.task_adaptive_attention import TaskAdaptiveAttention
from foveal.layers.triplet_attention import TripletAttention
from foveal.names import unknown

__all__ = [
    "CBAM",
    "LAYERS",
    "CoordinateAttention",
    "MixedPooling",
    "PyramidPooling",
    "ReAttention",
    "SandglassBlock",
    "SelectiveIntegration",
    "SqueezeExcite",
    "StripPooling",
    "TaskAdaptiveAttention",
    "TripletAttention",
    "attention_maps",
    "create_layer",
    "has_attention_maps",
    "reading_attention_maps",
]


def _triplet(
    channels: int,
    kernel_size: int = 7,
    spatial: bool = True,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    if channels < 1:  # the layer takes any number of them
        raise ValueError(f"channels must be at least 1, not {channels}")
    return TripletAttention(kernel_size, spatial, device=device, dtype=dtype)


# Shape-preserving layers of a map [B, C, H, W]: name -> what makes one from (channels, **kw).
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "coordinate": CoordinateAttention,
    "se": SqueezeExcite,
    "cbam": CBAM,
    "triplet": _triplet,
    "strip": StripPooling,
    "mixed": MixedPooling,
}


def create_layer(name: str, channels: int, **kw: Any) -> nn.Module:
    """Build a shape-preserving layer for feature maps by name.

    Args:
        name: a key of :data:`LAYERS`: ``coordinate``, ``se``, ``cbam``, ``triplet``, ``strip`` or
            ``mixed``.
        channels: C, channels of the map.
        **kw: further arguments of the layer, such as ``reduction``.

    Raises:
        ValueError: unknown name, or a value that the layer refuses.
        TypeError: the layer has no argument of that name.

    Example:
        >>> import torch
        >>> create_layer("se", 64, reduction=8)(torch.rand(1, 64, 5, 5)).shape
        torch.Size([1, 64, 5, 5])
    """
    if name not in LAYERS:
        raise ValueError(unknown("layer", name, LAYERS))
    layer = LAYERS[name]
    known = [p for p in inspect.signature(layer).parameters if p != "channels"]
    for key in kw:
        if key not in known:
            raise TypeError(unknown(f"{name} argument", key, known))
    try:
        return layer(channels, **kw)
    except TypeError as error:
        given = {key: value for key, value in kw.items() if key not in ("device", "dtype")}
        raise TypeError(f"the {name} layer does not take {given}: {error}") from error
