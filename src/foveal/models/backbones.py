"""Networks of timm's registry, foveal's own among them, with what is wrong in one sentence."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import foveal.torchvision_check  # noqa: F401  (before timm)

# isort: split

import timm
import torch
from timm.models import get_pretrained_cfg, is_model, model_entrypoint, split_model_name_tag
from torch import nn

from foveal.models.stem import build_with_stem, is_resnet
from foveal.names import unknown

# What every network takes.
_COMMON = ("pretrained", "num_classes", "in_chans", "features_only", "checkpoint_path")


def is_own(name: str) -> bool:
    """Return whether a registered network is foveal's."""
    return model_entrypoint(split_model_name_tag(name)[0]).__module__.startswith("foveal.")


def create_backbone(
    name: str, *, pretrained: bool = False, known: Iterable[str] = (), **kw: Any
) -> nn.Module:
    """Build a network of timm's registry.

    Args:
        name: a registered name or any other that timm takes.
        pretrained: load published weights.
        known: names that the caller knows beside those of the registry, for the nearest of them.
        **kw: arguments of the network and of timm's builder, ``stem_stride`` also where the network
            is timm's.

    Raises:
        ValueError: unknown name, an impossible value, no published weights.
        TypeError: an argument that the network does not have.
        OSError: published weights cannot be fetched.
    """
    if ":" not in name:  # timm's hf-hub: and local-dir: sources speak for themselves
        _check_name(name, known)
        if pretrained:
            _check_weights(name, kw)
    factory: Callable[..., nn.Module] = partial(timm.create_model, name, pretrained=pretrained)
    takes_stem = ":" not in name and is_own(name)
    if "stem_stride" in kw and not takes_stem:
        factory = partial(build_with_stem, factory)
    try:
        network = factory(**kw)
    except TypeError as error:
        fixed = re.search(r"multiple values for (?:keyword )?argument '(\w+)'", str(error))
        if fixed and fixed[1] in kw:
            raise TypeError(f"{fixed[1]} is fixed by the name {name!r}") from None
        argument = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if argument is None or argument[1] not in kw:
            raise
        # What one class of a network takes, timm's other class for its features may not.
        names = [name for name in _arguments(name) if name != argument[1]]
        raise TypeError(unknown(f"{name} argument", argument[1], names)) from None
    except OSError as error:
        if not pretrained:
            raise
        reason = str(error).splitlines()[0]
        raise OSError(
            f"the published weights of {name!r} cannot be fetched ({reason.rstrip('.')}): connect "
            "to the network once, or pass checkpoint_path"
        ) from error
    if pretrained and kw.get("stem_stride") == 1 and not takes_stem and is_resnet(network):
        raise ValueError("the pretrained weights are for the 7x7 stem: leave stem_stride=1 out")
    return network


def _check_name(name: str, others: Iterable[str]) -> None:
    architecture, tag = split_model_name_tag(name)
    if not is_model(architecture):
        known = [*others, *timm.list_models()]
        raise ValueError(unknown("model", architecture, known))
    if tag:
        known = timm.list_models(f"{architecture}.*", include_tags=True)
        if name not in known:
            raise ValueError(unknown("weights", name, known))


def _check_weights(name: str, kw: dict[str, Any]) -> None:
    overlay = kw.get("pretrained_cfg_overlay") or {}
    file = overlay.get("file")
    if file and not Path(file).is_file():
        raise FileNotFoundError(f"there is no file of weights {str(file)!r}")
    if overlay or kw.get("pretrained_cfg"):
        return
    config = get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(
            f"there are no published weights for {name!r}: leave pretrained out, or pass "
            "checkpoint_path"
        )


def _arguments(name: str) -> list[str]:
    """Return the names of the arguments that a backbone takes, for the nearest of them."""
    with torch.device("meta"):
        network = timm.create_model(name)
    makers = (model_entrypoint(split_model_name_tag(name)[0]), type(network))
    # What a network's class asks for, such as its table of blocks, is what its name stands for.
    names = [*_COMMON]
    names += [
        key
        for maker in makers
        for key, parameter in signature(maker).parameters.items()
        if maker is not makers[-1] or parameter.default is not parameter.empty
    ]
    if hasattr(network, "conv_stem") or is_resnet(network):
        names.append("stem_stride")
    return [p for p in dict.fromkeys(names) if p not in ("name", "kw", "kwargs")]
