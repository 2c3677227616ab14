"""Weights from files, read without running any code in them and loaded without leaving any out."""

import argparse
import logging
import math
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

_logger = logging.getLogger(__name__)

# What training scripts put beside the weights and torch's restricted reader does not know.
_NUMPY_TYPES = ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")
_ALLOWED: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *[type(np.dtype(name)) for name in _NUMPY_TYPES],
    # The same function under its names of NumPy 1 and 2.
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
]
# Where training scripts keep the weights in what they save, the usual name first.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "network", "net", "module", "weights")
_AVERAGES = ("state_dict_ema", "model_ema")  # timm's names for averaged weights beside them
_COUNTER = ".num_batches_tracked"  # of BatchNorm
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel, torch.compile


def read_checkpoint(path: str | Path) -> Any:
    """Return what a .safetensors file or a file of ``torch.save`` holds, on the CPU.

    Only tensors, plain containers, scalars, NumPy scalars and ``argparse.Namespace`` are read.

    Raises:
        OSError: there is no such file, or it may not be read.
        ValueError: the file is damaged, no checkpoint, or holds objects of other types.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint file {str(path)!r}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"{str(path)!r} is not a readable .safetensors file: {error}"
            ) from None
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.findall(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise ValueError(
                f"{str(path)!r} holds an object of type {refused[0]}, which is not loaded because "
                "it could run code: save the state_dict alone"
            ) from None
        raise ValueError(f"{str(path)!r} is not a readable checkpoint") from None
    except (RuntimeError, EOFError, KeyError, ValueError, UnicodeDecodeError):
        raise ValueError(f"{str(path)!r} is not a readable checkpoint (damaged or cut)") from None


def find_state_dict(checkpoint: Any, *, ema: bool = True) -> dict[str, torch.Tensor]:
    """Return the weights in a checkpoint, without their ``module.`` prefixes.

    Args:
        checkpoint: a state_dict, or a dict that holds one (under ``state_dict``, ``model``, ...)
            beside an optimiser's state, arguments or counters.
        ema: take averaged weights (under ``state_dict_ema`` or ``model_ema``) where there are some,
            as timm does; otherwise they are passed over.

    Raises:
        ValueError: no weights, or entries among them that are no tensors.
    """
    state = checkpoint
    containers = (*_AVERAGES, *_CONTAINERS) if ema else _CONTAINERS
    while container := _container(state, containers):
        state = state[container]
    if not isinstance(state, Mapping):
        raise ValueError(f"the checkpoint must be a dict of tensors, not {type(state).__name__}")
    if not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(
            f"the checkpoint has no weights: its entries are {some(map(str, state)) or 'none'}, "
            f"and weights are looked for under {', '.join(containers)}"
        )
    foreign = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise ValueError(f"the weights must be tensors, and {some(map(str, foreign))} are not")
    return _unwrap({str(key): value for key, value in state.items()})


def _container(state: Any, containers: tuple[str, ...]) -> str | None:
    if not isinstance(state, Mapping):
        return None
    return next((key for key in containers if isinstance(state.get(key), Mapping)), None)


def _unwrap(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            return _unwrap({key.removeprefix(prefix): value for key, value in state.items()})
    return state


@dataclass(frozen=True)
class Misfit:
    """How a state_dict differs from what a network needs; falsy if it does not.

    Attributes:
        missing: keys that the network has and the state_dict lacks.
        unexpected: keys that only the state_dict has.
        reshaped: key -> (shape in the state_dict, shape in the network).
    """

    missing: list[str]
    unexpected: list[str]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        shapes = [
            f"{key} {list(given)} where the network has {list(needed)}"
            for key, (given, needed) in self.reshaped.items()
        ]
        parts = [("missing", self.missing), ("unexpected", self.unexpected), ("shapes", shapes)]
        return "; ".join(f"{title}: {some(keys)}" for title, keys in parts if keys)


def compare(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> Misfit:
    """Return how ``state`` differs from a network's own state_dict in keys and shapes."""
    return Misfit(
        missing=[key for key in own if key not in state],
        unexpected=[key for key in state if key not in own],
        reshaped={
            key: (tuple(state[key].shape), tuple(value.shape))
            for key, value in own.items()
            if key in state and state[key].shape != value.shape
        },
    )


def with_counters(
    own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return ``state``, with counters of 0 for those of ``own`` if it has none at all.

    Weights of before torch 0.4.1 do not count the batches that BatchNorm has seen.
    """
    if any(key.endswith(_COUNTER) for key in state):
        return dict(state)
    zero = torch.zeros((), dtype=torch.long, device="cpu")
    return {**state, **{key: zero for key in own if key.endswith(_COUNTER)}}


def load_weights(network: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load ``state`` into the network, all of it and nothing else.

    The position embeddings of timm's vision transformers, foveal's DeepViT among them, are
    resampled where the network is for square pictures of another size, and this is logged.

    Args:
        network: changed in place.
        state: the weights.
        source: where they come from, for the error.

    Raises:
        ValueError: keys or shapes differ; the message lists which.
    """
    stored, state = state, _resampled(network, state)
    misfit = compare(network.state_dict(), state)
    if not misfit:
        if state is not stored:
            sizes = [len(each["pos_embed"][0]) for each in (stored, state)]
            _logger.warning("position embeddings are resampled from %d to %d tokens", *sizes)
        network.load_state_dict(state)
        return
    classes = _classes(network, misfit)
    if classes:
        given, needed = classes
        raise ValueError(
            f"{source} was trained for {given} classes and the network has {needed}; all else fits:"
            f" build it with num_classes={given}"
        )
    raise ValueError(f"{source} does not fit {type(network).__name__}: {misfit}")


def _resampled(network: nn.Module, state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Return the weights with the position embeddings of a square of patches made to fit."""
    if not isinstance(network, VisionTransformer):
        return state
    vit: Any = network
    ours, theirs = vit.pos_embed, state.get("pos_embed")
    if ours is None or theirs is None or theirs.ndim != 3 or theirs.shape == ours.shape:
        return state
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    side = math.isqrt(max(theirs.shape[1] - prefix, 0))
    if theirs.shape[2] != ours.shape[2] or side < 1 or side**2 != theirs.shape[1] - prefix:
        return state
    grid = vit.patch_embed.grid_size
    if grid[0] != grid[1]:  # then theirs may not be a square either
        return state
    resampled = resample_abs_pos_embed(theirs, grid, (side, side), prefix)
    return {**state, "pos_embed": resampled}


def _classes(network: nn.Module, misfit: Misfit) -> tuple[int, int] | None:
    """Return both numbers of classes if the classifier's shapes are all that differs."""
    names = getattr(network, "default_cfg", None) or {}
    names = names.get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
    if misfit.missing or misfit.unexpected or not prefixes:
        return None
    if not all(key.startswith(prefixes) for key in misfit.reshaped):
        return None
    given, needed = next(iter(misfit.reshaped.values()))
    return given[0], needed[0]


def some(keys: Iterable[str], limit: int = 12) -> str:
    """Return the keys, the first dozen of a long list and how many more there are."""
    names = list(keys)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
