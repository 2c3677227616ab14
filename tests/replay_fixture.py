"""Replay stored results of the papers' official code: python tests/replay_fixture.py FILE...

A fixture is a .safetensors file whose metadata names a class of the authors and its arguments.
The adapter of that class rebuilds foveal's module, fills it with the stored weights and compares
everything else that the file stores. One line is printed per comparison: file, tensor, largest
deviation relative to the largest stored value, tolerance. The exit status is 1 if a deviation is
above its tolerance, a file cannot be read, its class has no adapter, or a tensor was not compared.
"""

import itertools
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from foveal.layers import (
    CoordinateAttention,
    MixedPooling,
    SandglassBlock,
    StripPooling,
    TripletAttention,
)
from foveal.losses import OnlineLabelSmoothing
from foveal.models import create_model
from foveal.models.checkpoints import find_state_dict
from foveal.official import coordinate_attention as official_coordinate
from foveal.official import dfi as official_dfi
from foveal.official import load_official
from foveal.official import mobilenext as official_mobilenext
from foveal.official import spnet as official_spnet
from foveal.official import triplet_attention as official_triplet
from foveal.official.renaming import load_renamed, rename


@dataclass
class Fixture:
    """A file's tensors and metadata; remembers which tensors were used."""

    path: Path
    class_name: str
    args: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    used: set[str] = field(default_factory=set)

    def take(self, name: str) -> torch.Tensor:
        """Return a tensor that is needed as it is stored."""
        if name not in self.tensors:
            raise ValueError(f"the file has no tensor {name!r}")
        self.used.add(name)
        return self.tensors[name]

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
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
SINGLE_STRIP = Tolerance(
    "mixed pooling on a map of height or width 1: few values for a BatchNorm, whose float32 "
    "statistics are that inexact in the stored file already; measured up to 5e-5",
    gradients=1e-4,
)
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

    build: Callable[[dict[str, Any], dict[str, torch.Tensor]], tuple[nn.Module, Mapping[str, str]]]
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


def without_dropout(module: nn.Module) -> nn.Module:
    """Switch dropout off, as the fixtures' training passes did."""
    for child in module.modules():
        if isinstance(child, nn.Dropout | nn.Dropout2d):
            child.p = 0.0
        if hasattr(child, "drop_rate"):
            child.drop_rate = 0.0
    return module


# How the fixtures of MobileNeXt and DeepViT name what the others name differently.
_SHORT_NAMES = {
    "multiplier": "input/grad_out",
    "input_gradient": "grad/x",
    "buffers": "buffer_train/",
}


def _coordinate_layer(
    args: dict[str, Any], state: dict[str, torch.Tensor]
) -> tuple[nn.Module, Mapping[str, str]]:
    if args.get("oup", args["inp"]) != args["inp"]:
        raise ValueError("the layer keeps its channels: oup must equal inp")
    # The network file's copy calls the reduction `groups`; nothing is grouped.
    layer = CoordinateAttention(args["inp"], args.get("reduction", args.get("groups", 32)))
    modules = official_coordinate.layer_modules(state)
    load_renamed(layer, state, modules, "CoordAtt")
    return layer, modules


def _coordinate_block(
    args: dict[str, Any], state: dict[str, torch.Tensor]
) -> tuple[nn.Module, Mapping[str, str]]:
    block = load_official(state, stride=args["stride"])
    return block, official_coordinate.block_modules(expanded=args["expand_ratio"] != 1)


def _coordinate_network(
    args: dict[str, Any], state: dict[str, torch.Tensor]
) -> tuple[nn.Module, Mapping[str, str]]:
    return load_official(state), official_coordinate.network_modules()


def _triplet(
    args: dict[str, Any], state: dict[str, torch.Tensor]
) -> tuple[nn.Module, Mapping[str, str]]:
    """Build any class of the triplet repository: all but a block's stride is in its weights."""
    hints = {"stride": args["stride"]} if "stride" in args else {}
    renamed: Mapping[str, str] = {}
    if official_triplet.recognise(state):
        module = load_official(state, **hints)
        renamed = official_triplet.modules(state)
    elif "fc.weight" in state:  # the authors' baseline: any ResNet has these keys
        module = official_triplet.resnet(state)
    else:
        module = official_triplet.resnet_block(state, args.get("stride", 1))
    _check_triplet_arguments(args, module)
    return module, renamed


def _check_triplet_arguments(args: dict[str, Any], module: nn.Module) -> None:
    """Compare what was read from the weights with the arguments that are given."""
    layers = [m for m in module.modules() if isinstance(m, TripletAttention)]
    for key, attentive in (("use_triplet_attention", True), ("att_type", "TripletAttention")):
        if key in args and (args[key] == attentive) != bool(layers):
            raise ValueError(f"the weights do not follow {key}")
    for layer in layers:
        read = {
            "kernel_size": layer.cw.get_submodule("conv.conv").kernel_size[0],
            "no_spatial": layer.hw is None,
        }
        for key, value in read.items():
            if args.get(key, value) != value:
                raise ValueError(f"the weights do not follow {key}")


def _sandglass_block(
    args: dict[str, Any], state: dict[str, torch.Tensor]
) -> tuple[nn.Module, Mapping[str, str]]:
    """Build what the authors' block is for its arguments, which is not always what they ask for."""
    stride, ratio, keep = args["stride"], args["expand_ratio"], args.get("keep_3x3", False)
    full = ratio != 2 and (args["inp"] == args["oup"] or keep)  # ignores its stride
    adds = full and not keep
    hints = {"identity_div": args["identity_div"]} if adds and "identity_div" in args else {}
    block = load_official(state, stride=1 if full else stride, shortcut=adds, **hints)
    if (block.in_channels, block.out_channels) != (args["inp"], args["oup"]):
        raise ValueError("the channels are not those of the arguments")
    # Ours of the same arguments has the same middle.
    with torch.device("meta"):
        ours = SandglassBlock(args["inp"], args["oup"], 1, ratio).pw_reduce
    if (
        ours.get_submodule("conv").weight.shape
        != block.pw_reduce.get_submodule("conv").weight.shape
    ):
        raise ValueError("the middle is not as wide as the rule for the arguments says")
    return block, official_mobilenext.block_modules(state)


def _mobilenext(
    args: dict[str, Any], state: dict[str, torch.Tensor]
) -> tuple[nn.Module, Mapping[str, str]]:
    network = load_official(state, identity_div=args.get("identity_div", 1))
    if args.get("num_classes", network.num_classes) != network.num_classes:
        raise ValueError("the weights do not follow num_classes")
    if "width_mult" in args:
        sizes = {"num_classes": network.num_classes, "in_chans": network.in_chans}
        with torch.device("meta"):
            ours = create_model("mobilenext", width=args["width_mult"], **sizes).state_dict()
        if {k: v.shape for k, v in ours.items()} != {
            k: v.shape for k, v in network.state_dict().items()
        }:
            raise ValueError("the weights do not follow width_mult")
    return network, official_mobilenext.network_modules(state)


def _online_label_smoothing(fixture: Fixture) -> Iterator[Comparison]:
    """Replay the authors' epochs: losses, gradients, statistics and the matrix after each.

    Batches and epochs are found by counting. Tolerances are those of the specification of these
    files, relative to the largest value: 1e-6 for losses and matrices, 1e-5 for gradients, of the
    file's largest: where a network is sure of a whole batch, its gradients are rounding noise.
    """
    args = fixture.args
    if args.get("matrix_row", "target class") != "target class":
        raise ValueError(f"the rows of its matrix are {args['matrix_row']!r}, not target classes")
    loss = OnlineLabelSmoothing(
        args["num_classes"],
        hard_weight=args["hard_weight"],
        soft_weight=args["soft_weight"],
        freeze_at=args.get("freeze_row_when_max_at_least"),
    )
    start = fixture.take("state/loss_lams")
    gradients = [value for name, value in fixture.tensors.items() if name.startswith("grad/")]
    largest = max(value.abs().max().item() for value in gradients)
    if not torch.allclose(start, torch.full_like(start, args["initial_fill"]), rtol=1e-5, atol=0):
        raise ValueError("the stored start does not follow initial_fill")
    loss.soft_labels.copy_(start)
    for epoch in range(args["epochs"]):
        for batch in itertools.count():
            step = f"{epoch}_{batch}"
            if f"input/logits_{step}" not in fixture.tensors:
                break
            logits = fixture.take(f"input/logits_{step}").requires_grad_()
            value = loss(logits, fixture.take(f"input/target_{step}").flatten())
            value.backward()
            stored = fixture.take(f"output/loss_{step}")
            ours = value.detach().reshape(stored.shape)
            yield compare(f"output/loss_{step}", ours, stored, 1e-6)
            name = f"grad/logits_{step}"
            yield compare(name, logits.grad, fixture.take(name), 1e-5, largest)
        for name, ours in (("sum", loss.sum), ("count", loss.count)):
            stored = fixture.take(f"output/{name}_{epoch}")
            yield compare(f"output/{name}_{epoch}", ours.to(stored.dtype), stored, 1e-6)
        loss.next_epoch()
        name = f"output/matrix_{epoch}"
        yield compare(name, loss.soft_labels, fixture.take(name), 1e-6)


# How the fixtures of SPNet name what the others name differently.
_SPNET_NAMES = {"multiplier": "cotangent/y", "buffers": "state_after/"}


def _spnet_part(
    args: dict[str, Any], state: dict[str, torch.Tensor]
) -> tuple[nn.Module, Mapping[str, str]]:
    """Build a block or head of SPNet's repository: all but the hints is in its weights."""
    hints = {
        ours: args[theirs]
        for ours, theirs in (
            ("stride", "stride"),
            ("dilation", "dilation"),
            ("pool_sizes", "pool_size"),
        )
        if theirs in args
    }
    if "bn3.weight" in state:  # with a gate or without one: those are any ResNet's keys
        module = official_spnet.bottleneck(state, hints.get("stride", 1), hints.get("dilation", 1))
    else:
        module = load_official(state, **hints)
    _check_spnet_arguments(args, module)
    enlarging = args.get("up_kwargs") or {}
    for part in module.modules():
        if isinstance(part, MixedPooling):
            part.align_corners = enlarging.get("align_corners", True)
    if isinstance(module, StripPooling):
        setattr(module, "forward", module.gate)  # noqa: B010  (the authors' caller multiplies)
    return module, official_spnet.modules(module)


def _check_spnet_arguments(args: dict[str, Any], module: Any) -> None:
    """Compare what was read from the weights with the arguments that are given."""
    shapes = [p.shape for p in module.parameters() if p.ndim == 4]
    read = {
        "in_channels": shapes[0][1],
        "inplanes": shapes[0][1],
        "out_channels": shapes[-1][0],
        "outplanes": shapes[-1][0],
        "planes": shapes[0][0],
        "spm_on": any(isinstance(m, StripPooling) for m in module.modules()),
    }
    for key, value in read.items():
        if args.get(key, value) != value:
            raise ValueError(f"the weights do not follow {key}")


def _mixed_pooling(fixture: Fixture) -> Iterator[Comparison]:
    """Replay mixed pooling, with its own tolerance where a strip is all there is."""
    strip = min(fixture.tensors["input/x"].shape[2:]) == 1
    return ModuleAdapter(_spnet_part, SINGLE_STRIP if strip else LAYER, **_SPNET_NAMES)(fixture)


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


def _recipe_network(args: dict[str, Any]) -> tuple[Any, dict[str, torch.Tensor], dict[str, str]]:
    """Return SPNet filled by the recipe, its weights in the authors' names, and those names."""
    with torch.device("meta"):
        template = create_model(
            "spnet",
            backbone=f"{args['backbone']}s",  # the authors' are deep-stem ones
            num_classes=args["nclass"],
            gate="strip" if args.get("spm_on", True) else None,
            auxiliary=args.get("aux", True),
        )
    modules = dict(official_spnet.modules(template))
    back = {ours: theirs for theirs, ours in modules.items()}
    keys = {rename(key, back): value for key, value in template.state_dict().items()}
    state = {key: recipe(key, value) for key, value in keys.items()}
    return load_official(state), state, modules


def _spnet(fixture: Fixture) -> Iterator[Comparison]:
    """Replay a whole network in evaluation: logits, auxiliary logits, and what its stages say."""
    network, _, _ = _recipe_network(fixture.args)
    x = fixture.take("input/x")
    with torch.no_grad():
        y, aux = network(x, auxiliary=True)
        maps = network.backbone.model.forward_intermediates(x, intermediates_only=True)[1:]
    found = {"output/y": y, "output/aux": aux, "output/c4_slice": maps[3][:, ::64]}
    found |= {f"output/c{i}_mean": level.mean((2, 3)) for i, level in enumerate(maps, start=1)}
    for name in [name for name in fixture.tensors if name.startswith("output/")]:
        yield compare(name, found.get(name), fixture.take(name), LAYER.output)


def _spnet_losses(fixture: Fixture) -> Iterator[Comparison]:
    """Replay a step of training: both losses, predictions, norms of gradients, statistics.

    Norms are compared at 2e-2 and 0.5 % of the predicted pixels may differ, as the specification of
    these files says: in float64 they are up to 7e-3 and 0.13 % away from what is stored.
    """
    args = fixture.args
    network, filled, modules = _recipe_network(args)
    without_dropout(network).train()
    main, auxiliary = network(fixture.take("input/x"))
    target = fixture.take("input/target")
    ignore = args.get("ignore_index", 255)
    losses = {
        "output_train/main_loss": F.cross_entropy(main, target, ignore_index=ignore),
        "output_train/aux_loss": F.cross_entropy(auxiliary, target, ignore_index=ignore),
    }
    main_loss, aux_loss = losses.values()
    (main_loss + args.get("aux_weight", 0.4) * aux_loss).backward()
    for name, value in losses.items():
        yield compare(name, value.detach(), fixture.take(name), LAYER.output_train)
    different = main.argmax(1) != fixture.take("output_train/pred")
    yield Comparison("output_train/pred", different.double().mean().item(), 5e-3)
    gradients = {key: p.grad for key, p in network.named_parameters()}
    for key, stored in fixture.under("grad_norm/").items():
        gradient = gradients.get(rename(key, modules))
        norm = None if gradient is None else gradient.norm()
        yield compare(f"grad_norm/{key}", norm, stored, 2e-2)
    state = network.state_dict()
    for key, stored in fixture.under("state_after/").items():
        found = state.get(rename(key, modules))
        if found is not None and key.startswith("auxlayer."):
            found = _updated_again(key, filled[key], found)
        yield compare(f"state_after/{key}", found, stored, LAYER.buffers)


def _updated_again(key: str, before: torch.Tensor, once: torch.Tensor) -> torch.Tensor:
    """Return a statistic as the authors' code leaves it, which runs the auxiliary head twice.

    That is the one intended difference. Each run moves it a tenth of the way to the batch's value.
    """
    if key.endswith("num_batches_tracked"):
        return once + 1
    batch = (once.double() - 0.9 * before.double()) / 0.1
    return (0.9 * once.double() + 0.1 * batch).float()


# DFI's tasks as its fixtures name them, by the authors' numbers; and foveal's.
_DFI_TASKS = ("edge", "sal", "skel")

DFI = Tolerance("layers, blocks, decoder and whole network: float32, up to 5e-6 by specification")
CANCELLATION = Tolerance(
    "a bias of one channel: its gradient is a sum over all places that nearly cancels; measured up "
    "to 1.4e-5 by specification",
    gradients=5e-5,
)


@dataclass(frozen=True)
class NamedAdapter:
    """Replays a module of the DFI repository, with named inputs and outputs.

    BatchNorm is in evaluation mode everywhere, also where gradients are taken.

    Attributes:
        build: (arguments, stored weights without prefixes) -> module with the weights.
        run: (arguments, module, inputs by name) -> outputs by name.
    """

    build: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]
    run: Callable[[dict[str, Any], Any, dict[str, torch.Tensor]], dict[str, torch.Tensor]]

    def __call__(self, fixture: Fixture) -> Iterator[Comparison]:
        stored = fixture.under("state/")
        plain = find_state_dict(stored) if stored else {}
        prefix = next(iter(stored)).removesuffix(next(iter(plain))) if stored else ""
        module = self.build(fixture.args, plain).eval()
        inputs = {name: x.requires_grad_() for name, x in fixture.under("input/").items()}
        outputs = self.run(fixture.args, module, inputs)
        for part in ("output", "output_train"):
            for name, value in fixture.under(f"{part}/").items():
                found = outputs.get(name)
                ours = None if found is None else found.detach()
                yield compare(f"{part}/{name}", ours, value, DFI.output)
        multipliers = fixture.under("cotangent/")
        if not multipliers:
            return
        sum((outputs[name] * m).sum() for name, m in multipliers.items()).backward()
        gradients = {f"input/{name}": x.grad for name, x in inputs.items()}
        modules = official_dfi.modules(module)
        parameters = {key: p.grad for key, p in module.named_parameters()}
        pairs = []
        for name, value in fixture.under("grad/").items():
            ours = parameters.get(rename(name.removeprefix(prefix), modules))
            pairs.append((f"grad/{name}", gradients.get(name, ours), value))
        biases = [pair for pair in pairs if re.fullmatch(r"grad/.*trans\.\d+\.bias", pair[0])]
        others = [pair for pair in pairs if pair not in biases]
        yield from compare_gradients(others, DFI)
        yield from compare_gradients(biases, CANCELLATION)


def _levels(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [inputs[f"level{i}"] for i in range(sum(name.startswith("level") for name in inputs))]


def _dfi_names(tasks: Sequence[str]) -> dict[str, str]:
    """Return what the fixtures call foveal's tasks, in the authors' order."""
    short = dict(zip(official_dfi.task_names(len(_DFI_TASKS)), _DFI_TASKS, strict=True))
    known = official_dfi.task_names(max(len(tasks), len(_DFI_TASKS)))
    return {task: short.get(task, task) for task in known if task in tasks}


def _dfim(args: dict[str, Any], state: dict[str, torch.Tensor]) -> nn.Module:
    module: Any = load_official(state, level=args["size_id"])
    read = {
        "list_k": [merge[0].in_channels for merge in module.merge],
        "k": module.merge[0][0].out_channels,
        "modes": len(module.tasks),
    }
    _check_dfi_arguments(args, read)
    return module


def _run_dfim(
    args: dict[str, Any], module: Any, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    names = _dfi_names(module.tasks)
    found = module(_levels(inputs))
    outputs = {short: found[task] for task, short in names.items()}
    outputs["all"] = torch.cat(list(outputs.values()))
    gates = module.gates(_levels(inputs))
    return outputs | {f"gates_{short}": gates[task] for task, short in names.items()}


def _check_dfi_arguments(args: dict[str, Any], read: dict[str, Any]) -> None:
    """Compare what was read from the weights with the arguments that are given."""
    for key, value in read.items():
        if args.get(key, value) != value:
            raise ValueError(f"the weights do not follow {key}")


def _run_x(
    args: dict[str, Any], module: Any, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    return {"y": module(inputs["x"])}


def _tam(args: dict[str, Any], state: dict[str, torch.Tensor]) -> nn.Module:
    module: Any = load_official(state)
    _check_dfi_arguments(args, {"k": module.block[0].in_channels})
    return module


def _converter(args: dict[str, Any], state: dict[str, torch.Tensor]) -> nn.Module:
    module: Any = load_official(state)
    _check_dfi_arguments(args, {"list_k": _converter_widths(module)})
    return module


def _converter_widths(module: Any) -> list[list[int]]:
    convs = [part[0] for part in module.convert]
    return [[conv.in_channels for conv in convs], [conv.out_channels for conv in convs]]


def _run_converter(
    args: dict[str, Any], module: Any, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    return {f"level{i}": x for i, x in enumerate(module(_levels(inputs)))}


def _predictor(args: dict[str, Any], state: dict[str, torch.Tensor]) -> nn.Module:
    module: Any = load_official(state)
    _check_dfi_arguments(args, {"list_k": [conv.in_channels for conv in module.trans]})
    return module


def _run_predictor(
    args: dict[str, Any], module: Any, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    return _fused_and_sides(module(_levels(inputs), args["image_size"]), args["deep_sup"])


def _fused_and_sides(
    logits: Sequence[torch.Tensor], deep: bool, prefix: str = ""
) -> dict[str, torch.Tensor]:
    sides = {f"{prefix}side{i}": side for i, side in enumerate(logits[1:])}
    return {f"{prefix}fuse": logits[0]} | (sides if deep else {})


def _caffe_bottleneck(args: dict[str, Any], state: dict[str, torch.Tensor]) -> nn.Module:
    module: Any = official_dfi.bottleneck(state, args.get("stride", 1), args.get("dilation", 1))
    read = {"inplanes": module.conv1.in_channels, "planes": module.conv1.out_channels}
    _check_dfi_arguments(args, read)
    return module


def _dfi_decoder(args: dict[str, Any], state: dict[str, torch.Tensor]) -> nn.Module:
    module: Any = load_official(state)
    config = args["config"]
    for integrate, (_, _, size_id) in zip(module.dfims, config["dfims"], strict=True):
        integrate.level = size_id
    widths = [m.merge[0][0].out_channels for m in module.dfims]
    read = {
        "converter": _converter_widths(module.converter),
        "dfims": [
            [[merge[0].in_channels for merge in m.merge], width, m.level]
            for m, width in zip(module.dfims, widths, strict=True)
        ],
        "tams": [m.block[0].in_channels for m in module.tams],
        "predictors": [[widths, deep] for _, deep in config["predictors"]],
    }
    _check_dfi_arguments(config, read)
    return module


def _run_dfi_decoder(
    args: dict[str, Any], module: Any, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    names = _dfi_names(list(module.predictors))
    found = module(_levels(inputs), args["image_size"], list(names))
    gates = module.gates(_levels(inputs), list(names))
    outputs = _gates_of_scales(gates, names)
    for (task, short), (_, deep) in zip(names.items(), args["config"]["predictors"], strict=True):
        outputs |= _fused_and_sides(found[task], deep, f"{short}_")
    return outputs


def _gates_of_scales(
    gates: Mapping[str, torch.Tensor], names: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    return {
        f"gates_dfim{d}_{names[task]}": weights[:, d]
        for task, weights in gates.items()
        for d in range(weights.shape[1])
    }


def _dfi_network(args: dict[str, Any], state: dict[str, torch.Tensor]) -> nn.Module:
    """Return the whole network with the stored weights, or filled by the recipe without any."""
    if not state:
        with torch.device("meta"):
            template = create_model("dfi")
        back = {ours: theirs for theirs, ours in official_dfi.modules(template).items()}
        keys = {rename(key, back): value for key, value in template.state_dict().items()}
        state = {key: recipe(key, value) for key, value in keys.items()}
    return load_official(state)


@torch.no_grad()
def _run_dfi_network(
    args: dict[str, Any], module: Any, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    x = inputs["x"]
    names = _dfi_names(module.tasks)
    if args.get("mode", len(names)) < len(names):  # the number of the only task
        names = dict([list(names.items())[args["mode"]]])
    levels = module.levels(x)
    outputs = {f"level{i}": level for i, level in enumerate(levels)}
    outputs |= {f"level{i}_mean": level.mean((2, 3)) for i, level in enumerate(levels)}
    outputs |= _gates_of_scales(module.gates(x, list(names)), names)
    for task, logits in module(x, list(names), sides=True).items():
        outputs |= _fused_and_sides(logits, True, f"{names[task]}_")
    return outputs


# The authors' class, as the metadata names it -> how it is replayed.
ADAPTERS: dict[str, Adapter] = {
    "coordatt.CoordAtt": ModuleAdapter(_coordinate_layer),
    "mbv2_ca.CoordAtt": ModuleAdapter(_coordinate_layer),
    "mbv2_ca.InvertedResidual": ModuleAdapter(_coordinate_block),
    "mbv2_ca.MBV2_CA": ModuleAdapter(_coordinate_network, DEEP_NARROW_NET),
    "triplet_attention.TripletAttention": ModuleAdapter(_triplet),
    "MODELS.triplet_attention.TripletAttention": ModuleAdapter(_triplet),
    "MODELS.resnet.BasicBlock": ModuleAdapter(_triplet),
    "MODELS.resnet.Bottleneck": ModuleAdapter(_triplet),
    "MODELS.resnet.ResNet": ModuleAdapter(_triplet),
    "MODELS.resnet.ResidualNet": ModuleAdapter(_triplet),
    "MODELS.mobilenet.InvertedResidual": ModuleAdapter(_triplet),
    "MODELS.mobilenet.TripletAttention_MobileNetV2": ModuleAdapter(_triplet, DEEP_NARROW_NET),
    "SGBlock": ModuleAdapter(_sandglass_block, **_SHORT_NAMES),
    "MXNet": ModuleAdapter(_mobilenext, DEEP_NARROW_NET, **_SHORT_NAMES),
    "models.resnet.SPBlock": ModuleAdapter(_spnet_part, **_SPNET_NAMES),
    "models.resnet.Bottleneck": ModuleAdapter(_spnet_part, **_SPNET_NAMES),
    "models.customize.StripPooling": _mixed_pooling,
    "models.spnet.SPHead": _mixed_pooling,
    "models.fcn.FCNHead": ModuleAdapter(_spnet_part, **_SPNET_NAMES),
    "models.spnet.SPNet": _spnet,
    "models.spnet.SPNet (training forward)": _spnet_losses,
    "networks.dfi.DFIM": NamedAdapter(_dfim, _run_dfim),
    "networks.dfi.TAM": NamedAdapter(_tam, _run_x),
    "networks.dfi.Converter": NamedAdapter(_converter, _run_converter),
    "networks.dfi.Predictor": NamedAdapter(_predictor, _run_predictor),
    "networks.resnet.Bottleneck": NamedAdapter(_caffe_bottleneck, _run_x),
    "networks.dfi.DFI with a stand-in backbone": NamedAdapter(_dfi_decoder, _run_dfi_decoder),
    "networks.dfi.build_model": NamedAdapter(_dfi_network, _run_dfi_network),
    "Solver (cifar)": _online_label_smoothing,
    "Solver (fine-grained)": _online_label_smoothing,
}


def read(path: Path) -> Fixture:
    """Read a fixture.

    Raises:
        Exception: the file is missing, damaged or names no class.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if "class" not in metadata:
        raise ValueError("its metadata names no class")
    return Fixture(path, metadata["class"], json.loads(metadata.get("args", "{}")), tensors)


def replay(path: Path) -> list[Comparison]:
    """Compare all that the file stores.

    Raises:
        Exception: the file cannot be read, its class is not known, the module cannot be rebuilt,
            or a stored tensor was not compared.
    """
    fixture = read(path)
    if fixture.class_name not in ADAPTERS:
        raise ValueError(f"no adapter for its class {fixture.class_name!r}")
    comparisons = list(ADAPTERS[fixture.class_name](fixture))
    unused = sorted(set(fixture.tensors) - fixture.used)
    if unused:
        raise ValueError(f"tensors that were not compared: {', '.join(unused)}")
    return comparisons


def main(paths: list[str]) -> int:
    """Replay the files, print a line per comparison, return the exit status."""
    if not paths:
        print(__doc__)
        return 1
    failures = 0
    for path in paths:
        try:
            comparisons = replay(Path(path))
        except Exception as error:  # any failure to replay is this file's failure, not the end
            print(f"{path}: FAILED: {type(error).__name__}: {error}")
            failures += 1
            continue
        for c in comparisons:
            verdict = "ok" if c.passed else "FAILED"
            print(f"{path}  {c.tensor}  {c.deviation:.1e}  (at most {c.tolerance:.0e}) {verdict}")
        failures += not all(c.passed for c in comparisons)
    print(f"{len(paths) - failures} of {len(paths)} files replayed within their tolerances")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
