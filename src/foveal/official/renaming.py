"""Authors' key names to foveal's and back, and a load that leaves nothing out."""

import dataclasses
import logging
from collections.abc import Mapping

import torch
from torch import nn

from foveal.models.checkpoints import compare, some, with_counters

_logger = logging.getLogger(__name__)

Modules = Mapping[str, str]  # authors' module name -> foveal's


def rename(key: str, modules: Modules) -> str:
    """Return the key with its module's name replaced; unknown modules keep theirs.

    Args:
        key: a state_dict key: module name, dot, parameter or buffer; the network's own parameters
            have no module and stay.
        modules: old to new module names.

    Example:
        >>> rename("conv2.weight", {"conv2": "conv_h"})
        'conv_h.weight'
    """
    module, dot, leaf = key.rpartition(".")
    return f"{modules.get(module, module)}.{leaf}" if dot else key


def check_keys(
    template: nn.Module, state: Mapping[str, torch.Tensor], modules: Modules, what: str
) -> None:
    """Do nothing if ``state`` has the authors' keys for this network, all of them and no other.

    Once they are checked, sizes may be read from the shapes: each has the dimensions it should
    have, and none is 0.

    Args:
        template: a network of the same structure, of any width; may be on the meta device.
        state: the authors' state_dict.
        modules: authors' module names to foveal's.
        what: the source's word for the network, for the error.

    Raises:
        ValueError: keys are missing or unexpected, or tensors have other dimensions or no elements;
            the message lists them in the authors' names.
    """
    own = _official(template, modules)
    misfit = compare(own, with_counters(own, state))
    if misfit.missing or misfit.unexpected:
        keys = dataclasses.replace(misfit, reshaped={})
        raise ValueError(f"the checkpoint's keys do not fit {what}: {keys}")
    shapes = [
        f"{key} {list(state[key].shape)} where the network has {_dimensions(needed.ndim)}"
        for key, needed in own.items()
        if key in state and (state[key].ndim != needed.ndim or state[key].numel() == 0)
    ]
    if shapes:
        raise ValueError(f"the checkpoint does not fit {what}: shapes: {some(shapes)}")


def load_renamed(
    network: nn.Module, state: Mapping[str, torch.Tensor], modules: Modules, what: str
) -> None:
    """Load the authors' weights into foveal's network, strictly.

    Weights of before torch 0.4.1 do not count batches. The counters then are 0, and this is logged.

    Args:
        network: changed in place.
        state: the authors' state_dict.
        modules: authors' module names to foveal's.
        what: the source's word for the network, for the error.

    Raises:
        ValueError: keys or shapes differ; the message lists them in the authors' names.
    """
    own = _official(network, modules)
    counted = with_counters(own, state)
    misfit = compare(own, counted)
    if misfit:
        raise ValueError(f"the checkpoint does not fit {what}: {misfit}")
    network.load_state_dict({rename(key, modules): value for key, value in counted.items()})
    if len(counted) > len(state):
        _logger.warning("the checkpoint counts no batches: all num_batches_tracked are 0")


def _dimensions(number: int) -> str:
    return f"{number} dimension{'' if number == 1 else 's'}, none of them empty"


def _official(network: nn.Module, modules: Modules) -> dict[str, torch.Tensor]:
    """Return the network's state_dict under the authors' names."""
    back = {new: old for old, new in modules.items()}
    return {rename(key, back): value for key, value in network.state_dict().items()}
