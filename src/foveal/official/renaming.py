"""Authors' key names to foveal's and back, and a load that leaves nothing out."""

from collections.abc import Mapping

import torch
from torch import nn

from foveal.models.checkpoints import compare

Modules = Mapping[str, str]  # authors' module name -> foveal's


def rename(key: str, modules: Modules) -> str:
    """Return the key with its module's name replaced; unknown modules keep theirs.

    Args:
        key: a state_dict key: module name, dot, parameter or buffer.
        modules: old to new module names.

    Example:
        >>> rename("conv2.weight", {"conv2": "conv_h"})
        'conv_h.weight'
    """
    module, _, leaf = key.rpartition(".")
    return f"{modules.get(module, module)}.{leaf}"


def check_keys(template: nn.Module, state: Mapping[str, torch.Tensor], modules: Modules) -> None:
    """Do nothing if ``state`` has the authors' keys for this network, all of them and no other.

    Args:
        template: a network of the same structure, of any width; may be on the meta device.
        state: the authors' state_dict.
        modules: authors' module names to foveal's.

    Raises:
        ValueError: keys are missing or unexpected; the message lists them in the authors' names.
    """
    misfit = compare(_official(template, modules), state)
    if misfit.missing or misfit.unexpected:
        keys = type(misfit)(misfit.missing, misfit.unexpected, {})
        raise ValueError(f"the checkpoint's keys do not fit {type(template).__name__}: {keys}")


def load_renamed(network: nn.Module, state: Mapping[str, torch.Tensor], modules: Modules) -> None:
    """Load the authors' weights into foveal's network, strictly.

    Args:
        network: changed in place.
        state: the authors' state_dict.
        modules: authors' module names to foveal's.

    Raises:
        ValueError: keys or shapes differ; the message lists them in the authors' names.
    """
    misfit = compare(_official(network, modules), state)
    if misfit:
        raise ValueError(f"the checkpoint does not fit {type(network).__name__}: {misfit}")
    network.load_state_dict({rename(key, modules): value for key, value in state.items()})


def _official(network: nn.Module, modules: Modules) -> dict[str, torch.Tensor]:
    """Return the network's state_dict under the authors' names."""
    back = {new: old for old, new in modules.items()}
    return {rename(key, back): value for key, value in network.state_dict().items()}
