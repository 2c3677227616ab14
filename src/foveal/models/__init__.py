"""Networks by name: foveal's, registered with timm, and every one of timm's own.

Importing this package registers foveal's classification networks, so that ``timm.create_model``
knows them too. Networks that stand on one of those are in :data:`TASK_NETWORKS`.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from inspect import signature
from pathlib import Path
from typing import Any

import foveal.torchvision_check  # noqa: F401  (before timm)

# isort: split

import timm
from torch import nn

from foveal.models import (  # noqa: F401  (they register their networks)
    activation_classifier,
    attention_efficientnet,
    attention_resnet,
    bottleneck_classifier,
    deeplabv3,
    deepvit,
    dfi,
    lraspp,
    mobilenext,
    spnet,
)
from foveal.models.attention_mobilenetv2 import mobilenetv2
from foveal.models.backbones import create_backbone, is_own
from foveal.models.checkpoints import find_state_dict, load_weights, read_checkpoint
from foveal.models.counting import Counts, count
from foveal.models.input_size import check_input_size, nearest_valid_size
from foveal.models.options import check_whole
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

# Networks on a backbone of choice: name -> (task, what makes one). The factory gets
# ``pretrained``, ``num_classes``, ``in_chans`` and the caller's further arguments.
TASK_NETWORKS: dict[str, tuple[str, Callable[..., nn.Module]]] = {
    "spnet": ("segment", spnet.spnet),
    "deeplabv3": ("segment", deeplabv3.deeplabv3),
    "lraspp": ("segment", lraspp.lraspp),
    "dfi": ("dense", dfi.dfi),
    "activation_classifier": ("classify", activation_classifier.activation_classifier),
    "bottleneck_classifier": ("classify", bottleneck_classifier.bottleneck_classifier),
}


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
        name: a task network (:data:`TASK_NETWORKS`), a registered name of foveal or any name of
            timm (with or without the tag of its weights, or with timm's ``hf-hub:`` and
            ``local-dir:``).
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
        TypeError: an argument that the network does not have, or of a wrong type.
        OSError: the checkpoint is missing, or published weights cannot be fetched.

    Example:
        >>> import torch
        >>> network = create_model("mobilenetv2_050_coordinate", num_classes=10, stem_stride=1)
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if num_classes is not None:
        check_whole("num_classes", num_classes)
        if num_classes < 0:
            raise ValueError(f"num_classes must be 0 or more, not {num_classes}")
    check_whole("in_chans", in_chans)
    if in_chans < 1:
        raise ValueError(f"in_chans must be at least 1, not {in_chans}")
    state = find_state_dict(read_checkpoint(checkpoint_path)) if checkpoint_path else None
    if name in TASK_NETWORKS:
        if features_only:
            raise ValueError(
                "features_only is for classification networks that are a backbone, and "
                f"{name!r} stands on one"
            )
        _, factory = TASK_NETWORKS[name]
        known = [*signature(factory).parameters]
        for key in kw:
            if key not in known:
                raise TypeError(unknown(f"{name} argument", key, known))
        network = factory(pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **kw)
    else:
        if features_only:
            kw["features_only"] = True
        network = create_backbone(
            name,
            pretrained=pretrained,
            num_classes=num_classes,
            in_chans=in_chans,
            known=TASK_NETWORKS,
            **kw,
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
        own = [name for name in backbones if is_own(name)]
        names += own if pattern == "*" else own + [n for n in backbones if n not in set(own)]
    return [name for name in names if fnmatchcase(name, pattern)]
