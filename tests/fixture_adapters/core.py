"""What the adapters share: a fixture, the comparison of tensors, the replay of one module."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from foveal.models.checkpoints import find_state_dict
from foveal.official.renaming import rename

Args = dict[str, Any]  # the arguments of the authors' class
Tensors = dict[str, torch.Tensor]
Renamed = tuple[nn.Module, Mapping[str, str]]  # with the authors' module names -> foveal's


@dataclass
class Fixture:
    """A file's tensors and metadata; remembers which tensors were used."""

    path: Path
    class_name: str
    args: Args
    tensors: Tensors
    used: set[str] = field(default_factory=set)

    def take(self, name: str) -> torch.Tensor:
        """Return a tensor that is needed as it is stored."""
        if name not in self.tensors:
            raise ValueError(f"the file has no tensor {name!r}")
        self.used.add(name)
        return self.tensors[name]

    def under(self, prefix: str) -> Tensors:
        """Return the tensors whose names begin with the prefix, by the rest of their names."""
        names = [name for name in self.tensors if name.startswith(prefix)]
        return {name.removeprefix(prefix): self.take(name) for name in names}


@dataclass(frozen=True)
class Comparison:
    """One line of the report."""

    tensor: str
    deviation: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.deviation <= self.tolerance  # False for nan


@dataclass(frozen=True)
class Tolerance:
    """Largest deviations allowed for a class, and why; relative to the largest stored value.

    Gradients are relative to the file's largest gradient: those that are zero in exact arithmetic
    (a bias before BatchNorm) hold only rounding noise. ``gradients_l2`` compares the L2 norm of
    the difference over all stored gradients with theirs instead.
    """

    reason: str
    output: float = 1e-5
    output_train: float = 1e-5
    buffers: float = 1e-5
    gradients: float = 1e-5
    gradients_l2: float | None = None


LAYER = Tolerance("single layers and blocks: float32 rounding, measured up to 2e-6")
DEEP_NARROW_NET = Tolerance(
    "deep, narrow and randomly filled: rounding grows, and an input within rounding of a corner of "
    "ReLU6 or hard-swish may fall on either side of it, which changes gradients by per cents",
    output=1e-4,
    output_train=5e-4,
    buffers=5e-4,
    gradients_l2=0.1,
)

Adapter = Callable[[Fixture], Iterator[Comparison]]


@dataclass(frozen=True)
class ModuleAdapter:
    """Replays one module with one input ``x`` and one output ``y``.

    Attributes:
        build: (arguments, stored weights) -> (module with the weights, authors' module names ->
            foveal's where they differ). Training scripts save every key under ``module.``; what
            ``build`` gets has no such prefix.
        tolerance: of the class.
        multiplier: name of the tensor m; stored gradients are those of sum(y * m).
        input_gradient: name of the gradient of x.
        buffers: prefix of the buffers after the training pass.
    """

    build: Callable[[Args, Tensors], Renamed]
    tolerance: Tolerance = LAYER
    multiplier: str = "input/grad_output"
    input_gradient: str = "grad/input/x"
    buffers: str = "state_after_train/"

    def __call__(self, fixture: Fixture) -> Iterator[Comparison]:
        stored = fixture.under("state/")
        plain = find_state_dict(stored)
        module, modules = self.build(fixture.args, plain)
        with torch.no_grad():
            y = module.eval()(fixture.take("input/x"))
        yield compare("output/y", y, fixture.take("output/y"), self.tolerance.output)

        if self.multiplier in fixture.tensors:  # without it the file stores no training pass
            prefix = next(iter(stored)).removesuffix(next(iter(plain)))
            yield from self._training(fixture, without_dropout(module).train(), modules, prefix)

    def _training(
        self, fixture: Fixture, module: nn.Module, modules: Mapping[str, str], prefix: str
    ) -> Iterator[Comparison]:
        x = fixture.take("input/x").requires_grad_()
        y = module(x)
        (y * fixture.take(self.multiplier)).sum().backward()
        stored = fixture.take("output_train/y")
        yield compare("output_train/y", y.detach(), stored, self.tolerance.output_train)

        gradients = {self.input_gradient: x.grad}
        for key, parameter in module.named_parameters():
            gradients[f"grad/{key}"] = parameter.grad
        pairs = []
        for name in [name for name in fixture.tensors if name.startswith("grad/")]:
            key = name.removeprefix("grad/").removeprefix(prefix)
            ours = f"grad/{rename(key, modules)}"
            found = gradients.get(name if name == self.input_gradient else ours)
            pairs.append((name, found, fixture.take(name)))
        yield from compare_gradients(pairs, self.tolerance)

        state = module.state_dict()
        for key, stored in fixture.under(self.buffers).items():
            found = state.get(rename(key.removeprefix(prefix), modules))
            yield compare(f"{self.buffers}{key}", found, stored, self.tolerance.buffers)


def compare(
    name: str,
    ours: torch.Tensor | None,
    stored: torch.Tensor,
    tolerance: float,
    scale: float | None = None,
) -> Comparison:
    """Return the largest deviation relative to ``scale``, by default the largest stored value."""
    if ours is None or ours.shape != stored.shape or ours.dtype != stored.dtype:
        return Comparison(name, float("inf"), tolerance)
    if stored.numel() == 0:
        return Comparison(name, 0.0, tolerance)
    if scale is None:
        scale = stored.double().abs().max().item()
    deviation = (ours.double() - stored.double()).abs().max().item()
    return Comparison(name, deviation / scale if scale else deviation, tolerance)


def compare_gradients(
    pairs: list[tuple[str, torch.Tensor | None, torch.Tensor]], tolerance: Tolerance
) -> Iterator[Comparison]:
    """Compare (name, ours, stored), each alone or, with ``gradients_l2``, all together."""
    if not pairs:
        return
    lost = [name for name, ours, stored in pairs if ours is None or ours.shape != stored.shape]
    for name in lost:
        yield Comparison(name, float("inf"), tolerance.gradients)
    found = [(n, ours, stored) for n, ours, stored in pairs if ours is not None and n not in lost]
    if tolerance.gradients_l2 is None:
        scale = max(stored.double().abs().max().item() for _, _, stored in pairs)
        for name, ours, stored in found:
            yield compare(name, ours, stored, tolerance.gradients, scale)
        return
    difference = sum((o.double() - s.double()).square().sum().item() for _, o, s in found) ** 0.5
    norm = sum(s.double().square().sum().item() for _, _, s in found) ** 0.5
    name = f"grad/* ({len(found)} tensors, L2 norm)"
    yield Comparison(name, difference / norm if norm else difference, tolerance.gradients_l2)


def check_arguments(args: Args, read: Args) -> None:
    """Compare what was read from the weights with the arguments that are given."""
    for key, value in read.items():
        if args.get(key, value) != value:
            raise ValueError(f"the weights do not follow {key}")


def without_dropout(module: nn.Module) -> nn.Module:
    """Switch dropout off, as the fixtures' training passes did."""
    for child in module.modules():
        if isinstance(child, nn.Dropout | nn.Dropout2d):
            child.p = 0.0
        if hasattr(child, "drop_rate"):
            child.drop_rate = 0.0
    return module


def recipe(key: str, like: torch.Tensor) -> torch.Tensor:
    """Return the values that the recipe of the whole-network fixtures gives to a state_dict key.

    They are uniform numbers from an integer hash of the key and the flat index, in float64.
    """
    if key.endswith("num_batches_tracked"):
        return torch.zeros_like(like, device="cpu")
    with np.errstate(over="ignore"):
        z = np.arange(1, like.numel() + 1, dtype=np.uint64)
        z += np.uint64(zlib.crc32(key.encode()) << 32)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)) / 2.0**24
    if key.endswith(("running_mean", "bias")):
        values = 0.4 * u - 0.2
    elif like.ndim < 2:
        values = 0.5 + u
    else:
        values = (2 * u - 1) * (3 / (like.numel() / like.shape[0])) ** 0.5
    return torch.from_numpy(values.astype(np.float32)).reshape(like.shape)
