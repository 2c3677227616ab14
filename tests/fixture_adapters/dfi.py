"""Replays DFI: its modules with named inputs and outputs, and the network."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fixture_adapters.core import (
    Adapter,
    Args,
    Comparison,
    Fixture,
    Tensors,
    Tolerance,
    check_arguments,
    compare,
    compare_gradients,
    recipe,
)
from foveal.models import create_model
from foveal.models.checkpoints import find_state_dict
from foveal.official import dfi as official_dfi
from foveal.official import load_official
from foveal.official.renaming import rename

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

    build: Callable[[Args, Tensors], Any]
    run: Callable[[Args, Any, Tensors], Tensors]

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


def _levels(inputs: Tensors) -> list[torch.Tensor]:
    return [inputs[f"level{i}"] for i in range(sum(name.startswith("level") for name in inputs))]


def _dfi_names(tasks: Sequence[str]) -> dict[str, str]:
    """Return what the fixtures call foveal's tasks, in the authors' order."""
    short = dict(zip(official_dfi.task_names(len(_DFI_TASKS)), _DFI_TASKS, strict=True))
    known = official_dfi.task_names(max(len(tasks), len(_DFI_TASKS)))
    return {task: short.get(task, task) for task in known if task in tasks}


def _dfim(args: Args, state: Tensors) -> nn.Module:
    module: Any = load_official(state, level=args["size_id"])
    read = {
        "list_k": [merge[0].in_channels for merge in module.merge],
        "k": module.merge[0][0].out_channels,
        "modes": len(module.tasks),
    }
    check_arguments(args, read)
    return module


def _run_dfim(args: Args, module: Any, inputs: Tensors) -> Tensors:
    names = _dfi_names(module.tasks)
    found = module(_levels(inputs))
    outputs = {short: found[task] for task, short in names.items()}
    outputs["all"] = torch.cat(list(outputs.values()))
    gates = module.gates(_levels(inputs))
    return outputs | {f"gates_{short}": gates[task] for task, short in names.items()}


def _run_x(args: Args, module: Any, inputs: Tensors) -> Tensors:
    return {"y": module(inputs["x"])}


def _tam(args: Args, state: Tensors) -> nn.Module:
    module: Any = load_official(state)
    check_arguments(args, {"k": module.block[0].in_channels})
    return module


def _converter(args: Args, state: Tensors) -> nn.Module:
    module: Any = load_official(state)
    check_arguments(args, {"list_k": _converter_widths(module)})
    return module


def _converter_widths(module: Any) -> list[list[int]]:
    convs = [part[0] for part in module.convert]
    return [[conv.in_channels for conv in convs], [conv.out_channels for conv in convs]]


def _run_converter(args: Args, module: Any, inputs: Tensors) -> Tensors:
    return {f"level{i}": x for i, x in enumerate(module(_levels(inputs)))}


def _predictor(args: Args, state: Tensors) -> nn.Module:
    module: Any = load_official(state)
    check_arguments(args, {"list_k": [conv.in_channels for conv in module.trans]})
    return module


def _run_predictor(args: Args, module: Any, inputs: Tensors) -> Tensors:
    return _fused_and_sides(module(_levels(inputs), args["image_size"]), args["deep_sup"])


def _fused_and_sides(logits: Sequence[torch.Tensor], deep: bool, prefix: str = "") -> Tensors:
    sides = {f"{prefix}side{i}": side for i, side in enumerate(logits[1:])}
    return {f"{prefix}fuse": logits[0]} | (sides if deep else {})


def _caffe_bottleneck(args: Args, state: Tensors) -> nn.Module:
    module: Any = official_dfi.bottleneck(state, args.get("stride", 1), args.get("dilation", 1))
    read = {"inplanes": module.conv1.in_channels, "planes": module.conv1.out_channels}
    check_arguments(args, read)
    return module


def _dfi_decoder(args: Args, state: Tensors) -> nn.Module:
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
    check_arguments(config, read)
    return module


def _run_dfi_decoder(args: Args, module: Any, inputs: Tensors) -> Tensors:
    names = _dfi_names(list(module.predictors))
    found = module(_levels(inputs), args["image_size"], list(names))
    gates = module.gates(_levels(inputs), list(names))
    outputs = _gates_of_scales(gates, names)
    for (task, short), (_, deep) in zip(names.items(), args["config"]["predictors"], strict=True):
        outputs |= _fused_and_sides(found[task], deep, f"{short}_")
    return outputs


def _gates_of_scales(gates: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> Tensors:
    return {
        f"gates_dfim{d}_{names[task]}": weights[:, d]
        for task, weights in gates.items()
        for d in range(weights.shape[1])
    }


def _dfi_network(args: Args, state: Tensors) -> nn.Module:
    """Return the whole network with the stored weights, or filled by the recipe without any."""
    if not state:
        with torch.device("meta"):
            template = create_model("dfi")
        back = {ours: theirs for theirs, ours in official_dfi.modules(template).items()}
        keys = {rename(key, back): value for key, value in template.state_dict().items()}
        state = {key: recipe(key, value) for key, value in keys.items()}
    return load_official(state)


@torch.no_grad()
def _run_dfi_network(args: Args, module: Any, inputs: Tensors) -> Tensors:
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


ADAPTERS: dict[str, Adapter] = {
    "networks.dfi.DFIM": NamedAdapter(_dfim, _run_dfim),
    "networks.dfi.TAM": NamedAdapter(_tam, _run_x),
    "networks.dfi.Converter": NamedAdapter(_converter, _run_converter),
    "networks.dfi.Predictor": NamedAdapter(_predictor, _run_predictor),
    "networks.resnet.Bottleneck": NamedAdapter(_caffe_bottleneck, _run_x),
    "networks.dfi.DFI with a stand-in backbone": NamedAdapter(_dfi_decoder, _run_dfi_decoder),
    "networks.dfi.build_model": NamedAdapter(_dfi_network, _run_dfi_network),
}
