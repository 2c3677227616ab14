"""The network to be exported, and the comparison that every format has to pass."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveal.models.input_size import input_size_of

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Written:
    """A file just written.

    Attributes:
        run: the file read back: [B, C, H, W] -> outputs by name.
        inputs: what to compare on.
        dynamic: the axes whose length is free.
        notes: what a user must know.
    """

    run: Callable[[Tensor], Outputs]
    inputs: tuple[Tensor, ...]
    dynamic: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A network to be exported.

    Attributes:
        original: the caller's network, never changed.
        model: its copy in float32 on the CPU, in eval mode.
        channels: C of its input.
        image_size: side of the square to trace at, pixels.
        metadata: texts that travel in the file.
    """

    original: nn.Module
    model: nn.Module
    channels: int
    image_size: int
    metadata: dict[str, str]

    @classmethod
    def of(
        cls, model: nn.Module, *, image_size: int | None, metadata: Mapping[str, str]
    ) -> "Subject":
        """Gather what an export needs, and try the network once.

        Raises:
            ValueError: it does not take pictures of this size.
            TypeError: not a network, or its outputs are neither a tensor nor a dict of them.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"the network must be a torch.nn.Module, not {type(model).__name__}")
        for key, value in metadata.items():
            if not isinstance(value, str):
                raise TypeError(f"metadata {key!r} must be a str, not {type(value).__name__}")
        channels, side, _ = input_size_of(model)
        subject = cls(
            original=model,
            model=inference_copy(model),
            channels=channels,
            image_size=side if image_size is None else image_size,
            metadata={**_metadata(model), **metadata},
        )
        if subject.image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel, not {subject.image_size}")
        x = subject.input(1)
        try:
            outputs = subject.run(x)
        except Exception as error:
            raise ValueError(
                f"the network does not take an input of {list(x.shape)}: {first_line(error)}"
            ) from error
        named_outputs(outputs)
        return subject

    def input(self, batch: int, height: int | None = None, width: int | None = None) -> Tensor:
        """Return normal noise [batch, C, height, width], the same in every process."""
        shape = (batch, self.channels, height or self.image_size, width or self.image_size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def run(self, x: Tensor) -> Any:
        """Return what the copy computes."""
        with torch.no_grad():
            return self.model(x)


@dataclass(frozen=True)
class Format:
    """How to write one format, and how equal it has to be.

    Attributes:
        suffix: of the file, with its dot.
        write: writes the file and reads it back.
        tolerance: largest deviation, as a share of the largest output.
    """

    suffix: str
    write: Callable[[Subject, Path], Written]
    tolerance: float


def inference_copy(model: nn.Module) -> nn.Module:
    """Return a copy in float32, contiguous, on the CPU, in eval mode."""
    copied = copy.deepcopy(model).cpu().float().eval()
    return copied.to(memory_format=torch.contiguous_format)


def named_outputs(outputs: Any) -> Outputs:
    """Return a network's outputs by name; a single tensor is called ``logits``.

    Raises:
        TypeError: neither a tensor nor a dict of tensors.
    """
    if isinstance(outputs, Tensor):
        return {"logits": outputs}
    if isinstance(outputs, Mapping) and all(isinstance(y, Tensor) for y in outputs.values()):
        return dict(outputs)
    raise TypeError(
        f"a network to be exported returns a tensor or a dict of tensors, "
        f"not {type(outputs).__name__}"
    )


def relative_deviation(outputs: Outputs, expected: Outputs) -> float:
    """Return the largest difference as a share of the largest value, over all outputs.

    Infinite where names or shapes differ; NaN where a value is not finite.
    """
    if outputs.keys() != expected.keys():
        return math.inf
    worst = 0.0
    for name, y in expected.items():
        if outputs[name].shape != y.shape:
            return math.inf
        if y.numel() == 0:
            continue
        difference = (outputs[name].double() - y.double()).abs().max().item()
        largest = y.double().abs().max().item()
        if not (math.isfinite(difference) and math.isfinite(largest)):
            return math.nan
        if difference:
            worst = max(worst, difference / largest if largest else math.inf)
    return worst


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, at most 200 characters of it."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _published(model: nn.Module) -> Mapping[str, Any]:
    """Return timm's description of the network, if it has one."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    return config if isinstance(config, Mapping) else {}


def _metadata(model: nn.Module) -> dict[str, str]:
    found: dict[str, str] = {}
    described = _published(model)
    if architecture := described.get("architecture"):
        found["model"] = str(architecture)
    if (classes := getattr(model, "classes", None)) is not None:
        found["classes"] = json.dumps(list(classes), ensure_ascii=False)
    if (preprocess := getattr(model, "preprocess", None)) is not None:
        found["preprocess"] = json.dumps(preprocess.to_dict())
    elif "mean" in described and "std" in described:
        wanted = {"channel_order": "rgb", **described}
        names = ("channel_order", "mean", "std")
        found["normalization"] = json.dumps({name: wanted[name] for name in names})
    return found
