"""All pairs at once against one pair at a time: what the parallel modulator saves.

    python benchmarks/mining.py

A network with drawn weights looks at pictures of noise, of which each second one has two classes
and the others one (about what VOC has); its weights are such that pairs take different numbers of
steps. Both ways take turns in one process, round after round, so that whatever else the machine
does falls on both, and on a CPU the time is that of the process; figures are medians over the
rounds, the ratio is taken within a round. Before anything is timed, both must mine the same from
pictures of 64 pixels in float64.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import foveal
from foveal.mining import MiningConfig, MiningResult, RegionMiner

CLASSES = 20


class Network(nn.Module):
    """A backbone and a classifier without bias, whose maps are the activations."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = foveal.create_model(name, features_only=True, output_stride=16)
        channels = self.backbone.feature_info.channels()[-1]
        self.classifier = nn.Conv2d(channels, CLASSES, 1, bias=False)
        self.classifier.weight.data.abs_()  # with features above 0: there is always something

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [N, K] and activations [N, K, h, w]."""
        cams = self.classifier(self.backbone(x)[-1].relu())
        return cams.mean((2, 3)), cams


class Case(NamedTuple):
    """What is mined."""

    miner: RegionMiner
    pictures: Tensor
    labels: Tensor


def case(name: str, count: int, size: int, device: str = "cpu") -> Case:
    """Return a miner, pictures [N, 3, H, W] and labels [N, K]."""
    torch.manual_seed(0)
    network = Network(name).to(device)
    network.train()
    with torch.no_grad():  # statistics for BatchNorm
        for _ in range(10):
            network(torch.randn(count, 3, size, size, device=device))
    pictures = torch.randn(count, 3, size, size, device=device)
    labels = torch.zeros(count, CLASSES, dtype=torch.int64, device=device)
    own = torch.stack([torch.randperm(CLASSES)[:2] for _ in range(count)]).to(device)
    labels.scatter_(1, own[:, :1], 1)
    labels[::2] = labels[::2].scatter(1, own[::2, 1:], 1)
    config = MiningConfig(mode="relative", keep=0.95, tau=0.7, min_area=1)
    return Case(RegionMiner(network, config), pictures, labels)


def at_once(given: Case) -> MiningResult:
    """Mine all pairs together."""
    return given.miner.mine(given.pictures, given.labels)


def one_by_one(given: Case) -> list[MiningResult]:
    """Mine each pair for itself, from its first step to its last."""
    results = []
    for n, c in given.labels.nonzero().tolist():
        label = torch.zeros_like(given.labels[:1])
        label[0, c] = 1
        results.append(given.miner.mine(given.pictures[n : n + 1], label))
    return results


def compare(given: Case) -> None:
    """Check in float64 that both mine the same; the network then stays in it."""
    exact = given._replace(miner=given.miner.double(), pictures=given.pictures.double())
    together, alone = at_once(exact), one_by_one(exact)
    for name in ("step_map", "reason", "steps"):
        parts = torch.cat([getattr(result, name) for result in alone])
        if not torch.equal(getattr(together, name), parts):
            raise SystemExit(f"{name} differs between all at once and one by one")


def measure(
    ways: dict[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Return seconds of each way in each round; the first round warms up."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:
                times[name].append(clock() - start)
    return times


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 192], help="pixels")
    parser.add_argument("--count", type=int, default=8, help="pictures")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    print(f"{args.network}, {args.count} pictures, {args.device}, torch {torch.__version__}")
    print("| picture | pairs | looks | all at once, ms | one by one, ms | at once is faster |")
    print("|---|--:|--:|--:|--:|--:|")
    compare(case(args.network, args.count, 64, args.device))
    for size in args.sizes:
        given = case(args.network, args.count, size, args.device)
        result = at_once(given)
        times = measure(
            {"at once": lambda g=given: at_once(g), "alone": lambda g=given: one_by_one(g)},
            args.rounds,
            args.device,
        )
        ratio = statistics.median(
            alone / together for together, alone in zip(*times.values(), strict=True)
        )
        cells = " | ".join(f"{1e3 * statistics.median(found):.0f}" for found in times.values())
        looks = f"{len(result.pairs)} | {int(result.forwards.sum())}"
        print(f"| {size} x {size} | {looks} | {cells} | {ratio:.2f} times |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
