"""What layers cost: time and kept memory beside the authors' formulation, timm's and a plain copy.

    python benchmarks/layers.py --json layers.jsonl

All candidates of a case take turns in one process, round after round, so that whatever else the
machine does falls on all of them; figures are medians over the rounds, ratios are taken within a
round. Before anything is timed, what claims to compute the same is compared in float64. Each
finished case is one line of the file, under a hash of its settings; cases that are there are not
repeated, so the command can be stopped and given again.
"""

import argparse
import copy
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import foveal
from foveal.layers import (
    CoordinateAttention,
    MixedPooling,
    SandglassBlock,
    StripPooling,
    TripletAttention,
)
from foveal.models import count

# isort: split

import timm
from timm.layers import make_divisible
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from timm.layers.squeeze_excite import SEModule
from timm.models._efficientnet_blocks import InvertedResidual

SHAPES = ("32x64x56x56", "32x256x14x14", "1x64x112x112")
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
MODES = ("forward", "training")  # eval without gradients; train with the backward pass
SECONDS = 0.02  # a round of a candidate takes at least about this long


class AuthorsCoordinate(nn.Module):
    """Coordinate attention as its authors' code computes it, with their pooling modules.

    Written from the description of that code: adaptive pools over rows and columns, hard-swish of
    single operations, two products one after the other. Keys are those of foveal's layer.
    """

    def __init__(self, channels: int, reduction: int = 32) -> None:
        super().__init__()
        bottleneck = max(8, channels // reduction)
        self.pool_h = nn.AdaptiveAvgPool2d((None, 1))
        self.pool_w = nn.AdaptiveAvgPool2d((1, None))
        self.conv1 = nn.Conv2d(channels, bottleneck, 1)
        self.bn1 = nn.BatchNorm2d(bottleneck)
        self.conv_h = nn.Conv2d(bottleneck, channels, 1)
        self.conv_w = nn.Conv2d(bottleneck, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gated map."""
        height, width = x.shape[2:]
        columns = self.pool_w(x).permute(0, 1, 3, 2)
        joined = torch.cat([self.pool_h(x), columns], dim=2)
        squeezed = self.bn1(self.conv1(joined))
        squeezed = squeezed * (F.relu6(squeezed + 3) / 6)
        rows, columns = torch.split(squeezed, [height, width], dim=2)
        gate_h = self.conv_h(rows).sigmoid()
        gate_w = self.conv_w(columns.permute(0, 1, 3, 2)).sigmoid()
        return x * gate_w * gate_h


class AuthorsTriplet(nn.Module):
    """Triplet attention as its authors' code computes it: the map is rotated, gated, rotated back.

    Written from the description of that code; keys are those of foveal's layer.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        # The convolutions and their BatchNorm are the same modules; how they are used is not.
        self.cw, self.hc, self.hw = TripletAttention(kernel_size).children()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gated map."""
        rotated = x.permute(0, 2, 1, 3).contiguous()
        over_height = self._gated(self.cw, rotated).permute(0, 2, 1, 3).contiguous()
        rotated = x.permute(0, 3, 2, 1).contiguous()
        over_width = self._gated(self.hc, rotated).permute(0, 3, 2, 1).contiguous()
        return 1 / 3 * (self._gated(self.hw, x) + over_height + over_width)

    def _gated(self, gate: nn.Module, x: torch.Tensor) -> torch.Tensor:
        planes = torch.cat([torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)], dim=1)
        return x * gate(planes)


class AuthorsStrip(nn.Module):
    """Strip pooling as its authors' code computes it: strips are expanded, then added.

    Written from the description of that code; keys are those of foveal's layer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool_w, self.pool_h = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        # The convolutions and their BatchNorm are the same modules; how they are used is not.
        for name, module in StripPooling(channels).named_children():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gated map."""
        size = (-1, -1, x.shape[2], x.shape[3])
        rows = self.bn1(self.conv1(self.pool_w(x))).expand(*size)
        columns = self.bn2(self.conv2(self.pool_h(x))).expand(*size)
        return x * self.conv3(F.relu(rows + columns)).sigmoid()


class AuthorsMixed(nn.Module):
    """Mixed pooling as its authors' code computes it: every pool is resized to the whole map.

    Written from the description of that code; keys are those of foveal's layer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, module in MixedPooling(channels).named_children():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map with its context."""

        def resized(y: torch.Tensor) -> torch.Tensor:
            return F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True)

        a, b = self.conv1_1(x), self.conv1_2(x)
        fine = resized(self.conv2_1(F.adaptive_avg_pool2d(a, 20)))
        coarse = resized(self.conv2_2(F.adaptive_avg_pool2d(a, 12)))
        columns = resized(self.conv2_3(F.adaptive_avg_pool2d(b, (1, None))))
        rows = resized(self.conv2_4(F.adaptive_avg_pool2d(b, (None, 1))))
        short = self.conv2_5(F.relu(self.conv2_0(a) + fine + coarse))
        long = self.conv2_6(F.relu(columns + rows))
        return F.relu(x + self.conv3(torch.cat([short, long], dim=1)))


@dataclass(frozen=True)
class Group:
    """Candidates that are compared.

    Attributes:
        make: channels to candidates by name.
        reference: the candidate that the others are divided by, or none.
        same: candidates that must compute the same from the same weights.
    """

    make: Callable[[int], dict[str, nn.Module]]
    reference: str = ""
    same: tuple[str, ...] = ()


def _coordinate(channels: int) -> dict[str, nn.Module]:
    official = {"rd_channels": max(8, channels // 32), "bias": True}
    return {
        "foveal": CoordinateAttention(channels),
        "authors'": AuthorsCoordinate(channels),
        "timm, authors' settings": CoordAttn(channels, **official),
        "timm": CoordAttn(channels),
    }


def _sandglass(channels: int) -> dict[str, nn.Module]:
    sandglass = SandglassBlock(channels, channels, reduction=6)
    wanted = count(sandglass, (channels, 1, 1)).multiply_adds

    def difference(narrow: int) -> int:
        expanded = make_divisible(6 * narrow)
        return abs((2 * narrow + 9) * expanded - wanted)  # two 1x1 convolutions, one 3x3 depthwise

    narrow = min(range(1, channels + 1), key=difference)
    inverted = InvertedResidual(narrow, narrow, exp_ratio=6, act_layer=nn.ReLU6)
    return {"foveal": sandglass, "timm, inverted residual": inverted}


GROUPS = {
    "coordinate": Group(
        _coordinate, "authors'", same=("authors'", "foveal", "timm, authors' settings")
    ),
    "triplet": Group(
        lambda channels: {"foveal": TripletAttention(), "authors'": AuthorsTriplet()},
        "authors'",
        same=("authors'", "foveal"),
    ),
    "strip": Group(
        lambda channels: {"foveal": StripPooling(channels), "authors'": AuthorsStrip(channels)},
        "authors'",
        same=("authors'", "foveal"),
    ),
    "mixed": Group(
        lambda channels: {"foveal": MixedPooling(channels), "authors'": AuthorsMixed(channels)},
        "authors'",
        same=("authors'", "foveal"),
    ),
    "sandglass": Group(_sandglass, "timm, inverted residual"),
    "baselines": Group(lambda channels: {"SE": SEModule(channels), "CBAM": CbamModule(channels)}),
}


@dataclass(frozen=True)
class Case:
    """One line of the file: what is measured, and how."""

    layer: str
    shape: tuple[int, ...]
    layout: str
    mode: str
    threads: int
    rounds: int

    def key(self) -> str:
        """Return a hash of the settings and versions."""
        versions = [torch.__version__, timm.__version__, foveal.__version__]
        settings = json.dumps([*self.__dict__.values(), versions])
        return hashlib.sha256(settings.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.layer}, {named(self.shape)}, {self.layout}, {self.mode}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--layers", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument(
        "--shapes", nargs="+", type=shape_of, default=list(map(shape_of, SHAPES)), metavar="BxCxHxW"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="file of JSON lines to add to and go on from")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    cases = [
        Case(layer, shape, layout, mode, args.threads, args.rounds)
        for layer in args.layers
        for shape in args.shapes
        for layout in LAYOUTS
        for mode in MODES
    ]
    lines = {line["key"]: line for line in read(args.json)} if args.json else {}
    for number, case in enumerate(cases, start=1):
        if case.key() in lines:
            continue
        print(f"[{number}/{len(cases)}] {case}", file=sys.stderr)
        line = {"key": case.key(), **case.__dict__, **measure(case)}
        lines[line["key"]] = line
        if args.json:
            with args.json.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print("\n\n".join(tables([lines[case.key()] for case in cases])))
    return 0


def shape_of(text: str) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in text.split("x") if size.isdecimal())
    if len(sizes) != 4 or min(sizes) < 1 or named(sizes) != text:
        raise argparse.ArgumentTypeError(f"a shape must look like 32x64x56x56, not {text!r}")
    return sizes


def named(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def measure(case: Case) -> dict[str, Any]:
    """Return the figures of a case: seconds of a copy, and of each candidate time and memory."""
    torch.manual_seed(0)
    group = GROUPS[case.layer]
    candidates = group.make(case.shape[1])
    for module in candidates.values():
        fill(module)
    deviation = agreement({name: candidates[name] for name in group.same}, case)

    training = case.mode == "training"
    copied = picture(case)
    steps, kept = {"copy": step(Copy(), copied, training)}, {}
    for name, module in candidates.items():
        x = picture(case, channels_of(module))
        module.to(memory_format=LAYOUTS[case.layout])
        steps[name] = step(module, x, training)
        if training:
            kept[name] = kept_bytes(module, x) / copied.untyped_storage().nbytes()
    seconds = rounds(steps, case.rounds)
    reference = seconds.get(group.reference)
    results = {
        name: {
            "seconds": statistics.median(seconds[name]),
            "copies": ratio(seconds[name], seconds["copy"]),
            "speed": ratio(reference, seconds[name]) if reference else None,
            "kept": kept.get(name),
        }
        for name in candidates
    }
    return {
        "copy": statistics.median(seconds["copy"]),
        "candidates": results,
        "deviation": deviation,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "foveal": foveal.__version__,
    }


class Copy(nn.Module):
    """The least that a layer could do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a copy."""
        return x.mul(1.0)


def fill(module: nn.Module) -> None:
    """Give every parameter and statistic a value of its own."""
    for key, tensor in module.state_dict().items():
        if "var" in key:
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.3)


def channels_of(module: nn.Module) -> int | None:
    """Return the channels of a block that does not take those of the shape."""
    return module.conv_pw.in_channels if isinstance(module, InvertedResidual) else None


def picture(case: Case, channels: int | None = None) -> torch.Tensor:
    batch, given, height, width = case.shape
    x = torch.randn(batch, channels or given, height, width)
    return x.contiguous(memory_format=LAYOUTS[case.layout])


def step(module: nn.Module, x: torch.Tensor, training: bool) -> Callable[[], object]:
    """Return what is timed: a forward pass, or one with the backward pass."""
    module.train(training)
    if not training:

        def forward() -> torch.Tensor:
            with torch.no_grad():
                return module(x)

        return forward
    x.requires_grad_()
    inputs = [x, *module.parameters()]
    outer = torch.randn_like(module(x))
    return lambda: torch.autograd.grad(module(x), inputs, outer)


def rounds(steps: dict[str, Callable[[], object]], number: int) -> dict[str, list[float]]:
    """Return each step's seconds in every round; in a round the steps take turns."""

    def seconds(run: Callable[[], object], times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            run()
        return (time.perf_counter() - start) / times

    times = {}
    for name, run in steps.items():
        seconds(run, 1)  # warms up
        times[name] = max(1, round(SECONDS / seconds(run, 1)))
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(number):
        for name, run in steps.items():
            taken[name].append(seconds(run, times[name]))
    return taken


def ratio(seconds: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(seconds, others, strict=True))


def kept_bytes(module: nn.Module, x: torch.Tensor) -> int:
    """Return how many bytes a forward pass keeps for the backward pass, parameters aside."""
    own = [*module.parameters(), *module.buffers()]
    permanent = {tensor.untyped_storage().data_ptr() for tensor in own}
    storages = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # also keeps its address from being used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x)
    return sum(s.nbytes() for address, s in storages.items() if address not in permanent)


def agreement(candidates: dict[str, nn.Module], case: Case) -> float | None:
    """Return the largest deviation from the first candidate's results, with its weights.

    Compared in float64 are outputs in evaluation and training, all gradients, and the statistics
    afterwards, each relative to its largest value; outputs also in float32.

    Raises:
        SystemExit: the candidates do not compute the same.
    """
    if not candidates:
        return None
    (first, reference), *others = candidates.items()
    batch, channels, height, width = case.shape
    small = (min(batch, 2), channels, height, width)
    worst = 0.0
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        x = torch.randn(small, dtype=dtype).contiguous(memory_format=LAYOUTS[case.layout])
        outer = torch.randn_like(x)
        truth = results_of(copy.deepcopy(reference).to(dtype), x, outer)
        for name, module in others:
            module.load_state_dict(reference.state_dict())
            own = results_of(copy.deepcopy(module).to(dtype), x, outer)
            # Sums over whole planes are noisy in float32: there only the outputs are compared.
            keys = truth if dtype == torch.float64 else ("evaluation", "training")
            for key in keys:
                largest = truth[key].abs().max().item() or 1.0
                deviation = (own[key] - truth[key]).abs().max().item() / largest
                if not deviation <= tolerance:
                    raise SystemExit(
                        f"{case}: {key} of {name} deviates by {deviation:.1e} from that of {first}"
                    )
                if dtype == torch.float64:
                    worst = max(worst, deviation)
    return worst


def results_of(module: nn.Module, x: torch.Tensor, outer: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return outputs, gradients and statistics by name."""
    x = x.clone().requires_grad_()
    with torch.no_grad():
        evaluation = module.eval()(x)
    y = module.train()(x)
    y.backward(outer)
    # A bias before BatchNorm, coordinate attention's first, has rounding noise for a gradient.
    trained = [(k, p) for k, p in module.named_parameters() if k != "conv1.bias"]
    return {
        "evaluation": evaluation,
        "training": y.detach(),
        "the input's gradient": x.grad,
        **{f"the gradient of {k}": p.grad for k, p in trained},
        **{k: b for k, b in module.named_buffers() if b.is_floating_point()},
    }


def tables(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a Markdown table for each layer."""
    for layer, group in GROUPS.items():
        own = [line for line in lines if line["layer"] == layer]
        if not own:
            continue
        names = list(own[0]["candidates"])
        head = ["shape", "layout", "pass", "copy, ms", *names]
        rows = []
        for line in own:
            cells = [cell(line["candidates"][name], name != group.reference) for name in names]
            about = [named(line["shape"]), line["layout"], line["mode"]]
            rows.append([*about, f"{1000 * line['copy']:.2f}", *cells])
        rules = ["---"] * 4 + ["--:"] * len(names)
        text = ["| " + " | ".join(row) + " |" for row in (head, rules, *rows)]
        yield "\n".join([f"**{layer}**", "", *text])


def cell(result: dict[str, Any], compared: bool) -> str:
    """Return a candidate's figures: copies, times as fast as the reference, kept."""
    text = f"{result['copies']:.1f}"
    if compared and result["speed"]:
        text += f" ({result['speed']:.2f})"
    if result["kept"] is not None:
        text += f", {result['kept']:.2f}"
    return text


if __name__ == "__main__":
    raise SystemExit(main())
