"""What strip pooling, mixed pooling and SPNet cost beside the authors' formulation.

    python benchmarks/segmentation.py

Evaluation of the two layers where they stand in SPNet-50 at 480 x 480 pixels, and of the whole
network: as it is, with the auxiliary head, and as the authors' code computes it, which runs that
head in evaluation too. Candidates of a case take turns in one process, round after round, so that
whatever else the machine does falls on all of them; figures are medians over the rounds, ratios are
taken within a round. Before anything is timed, what claims to compute the same is compared. Peak
memory is that of a process which runs the candidate once, above what it had before (on Linux).
"""

import argparse
import functools
import gc
import math
import multiprocessing
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from layers import AuthorsMixed, AuthorsStrip, fill, ratio, rounds
from torch import Tensor, nn

import foveal
from foveal.layers import MixedPooling, StripPooling

SIDE = 480

AUTHORS: dict[type[nn.Module], Callable[[int], nn.Module]] = {
    StripPooling: AuthorsStrip,
    MixedPooling: AuthorsMixed,
}


class WithAuxiliary(nn.Module):
    """SPNet that runs its auxiliary head in evaluation, for nothing, as the authors' code does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the main logits, [B, K, H, W]."""
        logits: Tensor
        logits, _ = self.network(x, auxiliary=True)
        return logits


def authors(module: nn.Module) -> nn.Module:
    """Return a module with strip and mixed pooling in the authors' formulation, in place."""
    for kind, make in AUTHORS.items():
        if isinstance(module, kind):
            channels = next(module.parameters()).shape[1]
            theirs = make(channels)
            theirs.load_state_dict(module.state_dict())
            return theirs.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, authors(child))
    return module


def layer(kind: type[nn.Module], channels: int) -> nn.Module:
    """Return a layer in eval mode with weights and statistics of its own."""
    torch.manual_seed(0)
    module = kind(channels)
    fill(module)
    return module.eval()


def spnet() -> nn.Module:
    """Return SPNet-50 for ADE20K in eval mode, with statistics for which values stay in range."""
    torch.manual_seed(0)
    network = foveal.create_model("spnet", num_classes=150)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network.eval()


def strip() -> nn.Module:
    """Return the gate of SPNet-50's last blocks."""
    return layer(StripPooling, 512)


def mixed() -> nn.Module:
    """Return a mixed pooling module of SPNet's head."""
    return layer(MixedPooling, 1024)


def of_authors(make: Callable[[], nn.Module]) -> nn.Module:
    """Return what ``make`` makes, in the authors' formulation."""
    return authors(make())


def with_auxiliary(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a network that runs its auxiliary head too."""
    return WithAuxiliary(make())


GRID = SIDE // 8
CASES: dict[str, tuple[tuple[int, ...], dict[str, Callable[[], nn.Module]]]] = {
    "strip pooling, 512 x 60 x 60": (
        (1, 512, GRID, GRID),
        {"authors'": functools.partial(of_authors, strip), "foveal": strip},
    ),
    "mixed pooling, 1024 x 60 x 60": (
        (1, 1024, GRID, GRID),
        {"authors'": functools.partial(of_authors, mixed), "foveal": mixed},
    ),
    "SPNet-50, 480 x 480": (
        (1, 3, SIDE, SIDE),
        {
            "authors'": functools.partial(with_auxiliary, functools.partial(of_authors, spnet)),
            "foveal with the auxiliary head": functools.partial(with_auxiliary, spnet),
            "foveal": spnet,
        },
    ),
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| | layout | computed as | ms | times as fast as the authors' | peak memory, MiB |")
    print("|---|---|---|--:|--:|--:|")
    for case, (shape, makers) in CASES.items():
        for layout in (torch.contiguous_format, torch.channels_last):
            modules = {name: make().to(memory_format=layout) for name, make in makers.items()}
            x = torch.randn(shape).contiguous(memory_format=layout)
            compare(case, modules, x)
            steps = {
                name: functools.partial(evaluate, module, x) for name, module in modules.items()
            }
            seconds = rounds(steps, args.rounds)
            for name, make in makers.items():
                milliseconds = 1e3 * statistics.median(seconds[name])
                faster = ratio(seconds["authors'"], seconds[name])
                memory = peak(make, shape, layout, args.threads) / 2**20
                layout_name = "NCHW" if layout is torch.contiguous_format else "channels_last"
                print(
                    f"| {case} | {layout_name} | {name} | {milliseconds:.1f} | {faster:.2f} "
                    f"| {memory:.0f} |",
                    flush=True,
                )
    return 0


def evaluate(module: nn.Module, x: Tensor) -> Tensor:
    """Return a module's output, without gradients."""
    with torch.no_grad():
        y: Tensor = module(x)
    return y


def compare(case: str, modules: dict[str, nn.Module], x: Tensor) -> None:
    """Hold all candidates to the first one's output, in float32.

    Raises:
        SystemExit: one computes something else.
    """
    (first, truth), *others = ((name, evaluate(module, x)) for name, module in modules.items())
    for name, y in others:
        deviation = float((y - truth).abs().max() / truth.abs().max())
        if not deviation < 1e-4:
            raise SystemExit(f"{case}: {name} deviates by {deviation:.1e} from {first}")


def peak(
    make: Callable[[], nn.Module], shape: tuple[int, ...], layout: torch.memory_format, threads: int
) -> float:
    """Return by how many bytes one evaluation in a fresh process raises its peak of memory."""
    channels_last = layout is torch.channels_last
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_raised, (make, shape, channels_last, threads))


def _raised(
    make: Callable[[], nn.Module], shape: tuple[int, ...], channels_last: bool, threads: int
) -> float:
    torch.set_num_threads(threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = make().to(memory_format=layout)
    x = torch.randn(shape).contiguous(memory_format=layout)
    if not Path("/proc/self/clear_refs").exists():
        return math.nan  # another system than Linux
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    evaluate(module, x)
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """Return one of the process's figures of memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(kibibytes)


if __name__ == "__main__":
    raise SystemExit(main())
