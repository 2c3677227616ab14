"""What builders of networks share: their attention, their width, their feature maps."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from foveal.layers import create_layer


def attention_slot(
    name: str | None, reductions: Mapping[str, int], **layer_args: Any
) -> Callable[..., nn.Module] | None:
    """Return what a block calls to make its attention, or None without a name.

    Args:
        name: a layer of :func:`foveal.layers.create_layer`, or None.
        reductions: of the layers that have one, where ``reduction`` is not given.
        **layer_args: the layer's arguments, ``channels`` aside; None where its own default holds.

    Raises:
        TypeError: an argument for an attention where there is none.
    """
    given = {key: value for key, value in layer_args.items() if value is not None}
    if name is None:
        if given:
            raise TypeError(f"{next(iter(given))} is for an attention layer, and none is given")
        return None
    if name in reductions:
        given.setdefault("reduction", reductions[name])

    def make(
        channels: int,
        *,
        act_layer: Any = None,  # timm passes the block's; the layers here have their own
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> nn.Module:
        return create_layer(name, channels, device=device, dtype=dtype, **given)

    return make


def check_width(width: float) -> None:
    """Do nothing if channels can be multiplied by ``width``.

    Raises:
        TypeError: it is no number.
        ValueError: it is not finite, or not more than 0.
    """
    if not isinstance(width, (int, float)) or isinstance(width, bool):
        raise TypeError(f"width must be a number, not {width!r}")
    if not 0 < width < math.inf:
        raise ValueError(f"width must be more than 0 and finite, not {width!r}")


def check_whole(name: str, number: Any) -> None:
    """Do nothing if the argument of this name is a whole number.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(number, numbers.Integral) or isinstance(number, bool):
        raise TypeError(f"{name} must be a whole number, not {number!r}")


def check_flag(name: str, value: Any) -> None:
    """Do nothing if the argument of this name is True or False.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def feature_mode(
    whole: type[nn.Module],
    features: type[nn.Module],
    unused: tuple[str, ...],
    *,
    features_only: bool,
    levels: int,
    kw: dict[str, Any],
) -> tuple[type[nn.Module], dict[str, Any]]:
    """Return the class to build and what timm's builder is told about feature maps.

    Args:
        whole: the network's class.
        features: its class for feature maps, which has the keys of the whole network and no
            wrapper; timm's default for these families.
        unused: arguments that ``features`` does not have.
        features_only: whether feature maps are wanted.
        levels: how many there are.
        kw: a caller's arguments; ``out_indices`` is set, or ``feature_cfg`` removed.
    """
    if features_only and not ("feature_cls" in kw or "feature_cfg" in kw):
        kw.setdefault("out_indices", tuple(range(levels)))
        return features, {"kwargs_filter": unused}
    defaults = {"out_indices": tuple(range(levels)), "flatten_sequential": True}
    feature_cfg = {**defaults, **kw.pop("feature_cfg", {})}
    return whole, {"features_only": features_only, "feature_cfg": feature_cfg}
