"""Networks by name: foveal's, registered with timm, and every one of timm's own.

Importing this package registers foveal's classification networks, so that ``timm.create_model``
knows them too.
"""

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
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

from foveal.models import (  # noqa: F401  (they register their networks)
    attention_efficientnet,
    attention_resnet,
    mobilenext,
)
from foveal.models.attention_mobilenetv2 import mobilenetv2
from foveal.models.checkpoints import find_state_dict, load_weights, read_checkpoint
from foveal.models.counting import Counts, count
from foveal.models.input_size import check_input_size, nearest_valid_size
from foveal.models.stem import build_with_stem, is_resnet
from foveal.names import unknown

__all__ = [
    "TASK_NETWORKS",
    "Counts",
    "check_input_size",
    "count",
    "create_model",
    "list_models",
    "mobilenetv2",
    "nearest_valid_size",
]

TASKS = ("classify", "segment", "detect", "dense")

# Networks for tasks other than classification: name -> (task, what makes one). The factory gets
# ``pretrained``, ``num_classes``, ``in_chans`` and the caller's further arguments.
TASK_NETWORKS: dict[str, tuple[str, Callable[..., nn.Module]]] = {}


def create_model(
    name: str,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int = 3,
    features_only: bool = False,
    checkpoint_path: str | Path = "",
    **kw: Any,
) -> nn.Module:
    """Build a network by name.

    Args:
        name: a task network, a registered name of foveal or any name of timm (with or without
            the tag of its weights, or with timm's ``hf-hub:`` and ``local-dir:``).
        pretrained: load published weights. Networks with attention take those of the plain
            network for their trunk and log which tensors are new.
        num_classes: outputs of the classifier; 0 leaves it out; None keeps the network's own
            number, usually 1000.
        in_chans: channels of the input.
        features_only: return a list of feature maps instead of logits; ``out_indices`` chooses.
        checkpoint_path: weights to load last, .safetensors or a state_dict of ``torch.save``;
            every tensor must fit.
        **kw: further arguments of the network. ``stem_stride=1`` (small pictures) works for every
            network that begins with timm's ``conv_stem`` and for ResNets.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: unknown name, an impossible value, no published weights, a checkpoint that is
            damaged or does not fit.
        TypeError: an argument that the network does not have.
        OSError: the checkpoint is missing, or published weights cannot be fetched.

    Example:
        >>> network = create_model("mobilenetv2_050_coordinate", num_classes=10, stem_stride=1)
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if num_classes is not None and num_classes < 0:
        raise ValueError(f"num_classes must be 0 or more, not {num_classes}")
    if in_chans < 1:
        raise ValueError(f"in_chans must be at least 1, not {in_chans}")
    state = find_state_dict(read_checkpoint(checkpoint_path)) if checkpoint_path else None
    if name in TASK_NETWORKS:
        if features_only:
            raise ValueError(f"features_only is for classification networks, which {name!r} is not")
        _, factory = TASK_NETWORKS[name]
        network = factory(pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **kw)
    else:
        if features_only:
            kw["features_only"] = True
        network = _create_backbone(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **kw
        )
    if state is not None:
        load_weights(network, state, f"the checkpoint {str(checkpoint_path)!r}")
    return network


def list_models(pattern: str = "*", task: str | None = None) -> list[str]:
    """Return the names of networks that match, foveal's own first.

    Args:
        pattern: with ``*`` and ``?``. The bare ``*`` lists foveal's own networks; any other
            pattern also finds timm's.
        task: only networks for ``classify``, ``segment``, ``detect`` or ``dense``.

    Raises:
        ValueError: unknown task.
    """
    if task is not None and task not in TASKS:
        raise ValueError(unknown("task", task, TASKS))
    names = [name for name, (its_task, _) in TASK_NETWORKS.items() if task in (None, its_task)]
    if task in (None, "classify"):
        backbones = timm.list_models()
        own = [name for name in backbones if _is_own(name)]
        names += own if pattern == "*" else own + [n for n in backbones if n not in set(own)]
    return [name for name in names if fnmatchcase(name, pattern)]


def _is_own(name: str) -> bool:
    return model_entrypoint(split_model_name_tag(name)[0]).__module__.startswith("foveal.")


def _create_backbone(name: str, *, pretrained: bool, **kw: Any) -> nn.Module:
    """Build a network of timm's registry; say what is wrong in one sentence."""
    if ":" not in name:  # timm's hf-hub: and local-dir: sources speak for themselves
        _check_name(name)
        if pretrained:
            _check_weights(name, kw)
    factory: Callable[..., nn.Module] = partial(timm.create_model, name, pretrained=pretrained)
    takes_stem = ":" not in name and _is_own(name)
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
        known = [known for known in _arguments(name) if known != argument[1]]
        raise TypeError(unknown(f"{name} argument", argument[1], known)) from None
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


def _check_name(name: str) -> None:
    architecture, tag = split_model_name_tag(name)
    if not is_model(architecture):
        known = [*TASK_NETWORKS, *timm.list_models()]
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
    makers = (create_model, model_entrypoint(split_model_name_tag(name)[0]), type(network))
    # What a network's class asks for, such as its table of blocks, is what its name stands for.
    names = [
        key
        for maker in makers
        for key, parameter in signature(maker).parameters.items()
        if maker is not makers[-1] or parameter.default is not parameter.empty
    ]
    if hasattr(network, "conv_stem") or is_resnet(network):
        names.append("stem_stride")
    return [p for p in dict.fromkeys(names) if p not in ("name", "kw", "kwargs")]
