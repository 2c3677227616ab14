"""Why the steps of mining should follow the object: a simulation without any training.

    python benchmarks/mining_simulation.py --out simulation.jsonl
    python benchmarks/mining_simulation.py --show simulation.jsonl

The scenes are of 48 by 48 pixels, with two classes and one ellipse of each, whose radius is drawn
from 2 to 16 log-uniformly. A channel for each class holds evidence: noise everywhere, and in the
ellipse cells of 4 by 4 pixels of log-normal strength. The "network" is a rectified mean of 5 by 5
pixels. All mining is done by ``foveal.mining.RegionMiner``. Thresholds, numbers of steps and
percentiles of tuned rows are chosen on other scenes, with pixel truth. Each seed is a line of JSON
in the file and is not repeated if it is there.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import math
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from foveal.metrics import iou_by_object_size, spearman
from foveal.mining import MiningConfig, MiningResult, Modulator, RegionMiner

SEEDS = [100, 101, 102, 103, 104]  # the scene model was made with others
SIZE, CELL, CLASSES = 48, 4, 2
SMALL, LARGE = 80, 300  # pixels: smaller, and at least this large
STEPS = 8
CAM_TAUS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)
TAUS = (0.3, 0.4, 0.5, 0.6, 0.7)
PERCENTILES = (50, 75, 90, 95, 99)
# Balanced IoU of adaptive mining over each other row, and its correlation of steps and area.
LEAST = {"CAM, tuned": 0.03, "fixed steps, tuned": 0.10, "joint stop, tuned": 0.03}
LEAST_SPEARMAN = 0.7


class Scenes(NamedTuple):
    """Evidence [N, 2, H, W] and truth [2 N, H, W], picture by picture."""

    pictures: Tensor
    truth: Tensor


def draw(count: int, generator: torch.Generator, objects: bool = True) -> Scenes:
    """Return ``count`` pictures with an object of each class, or without any."""
    number = count * CLASSES

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(number, 1, 1, generator=generator)

    coarse = torch.randn(number, 1, SIZE // 8, SIZE // 8, generator=generator)
    slow = interpolate(coarse, (SIZE, SIZE), mode="bilinear")[:, 0]
    noise = 0.15 * slow + 0.22 * torch.randn(number, SIZE, SIZE, generator=generator)
    radius = uniform(math.log(2), math.log(16)).exp()
    stretch, angle = uniform(0.7, 1.0 / 0.7).sqrt(), uniform(0, math.pi)
    reach = radius * torch.maximum(stretch, 1 / stretch)
    x0, y0 = (reach + (SIZE - 1 - 2 * reach) * uniform(0, 1) for _ in "xy")
    y, x = torch.arange(SIZE)[None, :, None] - y0, torch.arange(SIZE)[None, None] - x0
    along = (x * angle.cos() + y * angle.sin()) / stretch
    across = (y * angle.cos() - x * angle.sin()) * stretch
    inside = along.square() + across.square() <= radius.square()
    cells = SIZE // CELL
    strength = (0.9 * torch.randn(number, cells, cells, generator=generator) - 0.7).exp()
    strength = strength.clamp(0.05, 4)
    strength = strength.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
    inside &= torch.tensor(objects)
    evidence = noise + strength * inside
    return Scenes(evidence.view(count, CLASSES, SIZE, SIZE), inside)


def network(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits, which nobody uses, and activations: what the evidence of 5 x 5 pixels is."""
    cams = avg_pool2d(pictures, 5, 1, 2).relu()
    return cams.mean((2, 3)), cams


def mine(scenes: Scenes, modulators: dict[int, Modulator], tau: float, **options: Any) -> Any:
    """Return what is mined, with the modulator of a percentile where one is needed."""
    percentile = options.pop("percentile", 95)
    config = MiningConfig(tau=tau, max_steps=STEPS, max_batch_pairs=1024, **options)
    labels = torch.ones(len(scenes.pictures), CLASSES)
    return RegionMiner(network, config, modulators[percentile]).mine(scenes.pictures, labels)


def score(result: MiningResult, scenes: Scenes) -> dict[str, Any]:
    """Return the numbers of a row; the balanced IoU is the mean over sizes."""
    found = iou_by_object_size(result.masks, scenes.truth, [SMALL, LARGE])
    sizes = torch.bucketize(found.area, torch.tensor([SMALL, LARGE]), right=True)
    steps = result.steps.double()
    correlation = spearman(result.steps, found.area)
    return {
        "iou": statistics.mean(found.means),
        "sizes": list(found.means),
        "steps": [float(steps[sizes == k].mean()) for k in range(3)],
        "spearman": None if math.isnan(correlation) else correlation,
        "forwards": float(result.forwards.sum()) / len(result.pairs),
        "unmined": len(result.unmined),
    }


def measure(seed: int, count: int, tuning: int, negatives: int) -> dict[str, Any]:
    """Return all rows of one seed: {row: numbers}."""
    generator = torch.Generator().manual_seed(seed)
    test, tune = draw(count // CLASSES, generator), draw(tuning // CLASSES, generator)
    empty = draw(negatives // CLASSES, generator, objects=False)
    absent = [(empty.pictures, torch.zeros(len(empty.pictures), CLASSES))]
    modulators = {
        p: Modulator(CLASSES, MiningConfig(quantile=p / 100)).calibrate(network, absent)
        for p in PERCENTILES
    }
    # Fixed steps of all numbers from one mining each: an earlier stop is read from the step map.
    fixed = {tau: mine(tune, modulators, tau, adaptive=False) for tau in {*CAM_TAUS, *TAUS}}
    cam_tau = max(CAM_TAUS, key=lambda tau: score(fixed[tau].at_step(1), tune)["iou"])
    tau_steps = max(
        itertools.product(TAUS, range(2, STEPS + 1)),
        key=lambda pair: score(fixed[pair[0]].at_step(pair[1]), tune)["iou"],
    )
    tau_percentile = max(
        itertools.product(TAUS, PERCENTILES),
        key=lambda pair: score(mine(tune, modulators, pair[0], percentile=pair[1]), tune)["iou"],
    )
    tau, percentile = tau_percentile

    def at(tau: float, steps: int) -> MiningResult:
        return mine(test, modulators, tau, adaptive=False).at_step(steps)

    rows = {
        "CAM, tuned": (at(cam_tau, 1), f"tau {cam_tau}"),
        "CAM, tau 0.5": (at(0.5, 1), ""),
        "fixed steps, tuned": (at(*tau_steps), f"tau {tau_steps[0]}, {tau_steps[1]} steps"),
        **{f"fixed, tau 0.7, {k} steps": (at(0.7, k), "") for k in (2, 4, 6)},
        "adaptive, tuned": (
            mine(test, modulators, tau, percentile=percentile),
            f"tau {tau}, percentile {percentile}",
        ),
        "adaptive, tau 0.5, percentile 95": (mine(test, modulators, 0.5), ""),
        "adaptive, tau 0.7, percentile 95": (mine(test, modulators, 0.7), ""),
        "joint stop, tuned": (
            mine(test, modulators, tau, percentile=percentile, joint_stop=True),
            "as adaptive",
        ),
        "merged mask, tuned": (
            mine(test, modulators, tau, percentile=percentile, merged=True),
            "as adaptive",
        ),
    }
    return {name: {**score(result, test), "chosen": text} for name, (result, text) in rows.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run or show; the status is 1 if the simulation does not show what it should."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="file of JSON lines to add to")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--count", type=int, default=400, help="objects that are scored")
    parser.add_argument("--tuning", type=int, default=200, help="objects to choose settings with")
    parser.add_argument("--negatives", type=int, default=400, help="maps without an object")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of a file")
    args = parser.parse_args(arguments)
    if args.show is None and args.out is None:
        parser.error("give --out FILE; or --show FILE")
    if args.out:
        torch.set_num_threads(args.threads)
        setting = {"count": args.count, "tuning": args.tuning, "negatives": args.negatives}
        for seed in args.seeds:
            key = key_of({"seed": seed, **setting})
            if any(line["key"] == key for line in read(args.out)):
                continue
            start = time.monotonic()
            line = {"key": key, "seed": seed, **setting, "rows": measure(seed, **setting)}
            line["seconds"] = round(time.monotonic() - start, 1)
            line |= {"torch": torch.__version__, "machine": platform.machine()}
            print(f"seed {seed}: {line['seconds']} s", file=sys.stderr)
            with args.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    lines = read(args.show or args.out)
    print(show(lines))
    failures = misses(lines)
    print("\n".join(["", *failures]) if failures else "\nall that is asked for is there")
    return 1 if failures else 0


def key_of(values: dict[str, Any]) -> str:
    """Return the key of a line: of its settings and of the miner's defaults."""
    known = {**values, "miner": dataclasses.asdict(MiningConfig()), "steps": STEPS}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a results file; none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def means(lines: list[dict[str, Any]], row: str, number: str) -> list[float]:
    """Return a number of a row for each seed."""
    return [line["rows"][row][number] for line in lines]


def misses(lines: list[dict[str, Any]]) -> list[str]:
    """Say what the mean over seeds falls short of."""
    best = means(lines, "adaptive, tuned", "iou")
    found = [
        f"adaptive minus {row}: {gain:.3f}, at least {least} is asked for"
        for row, least in LEAST.items()
        if (gain := statistics.mean(best) - statistics.mean(means(lines, row, "iou"))) < least
    ]
    correlation = statistics.mean(means(lines, "adaptive, tuned", "spearman"))
    if correlation < LEAST_SPEARMAN:
        found.append(f"Spearman {correlation:.2f}, at least {LEAST_SPEARMAN} is asked for")
    return found


def show(lines: list[dict[str, Any]]) -> str:
    """Return the table in Markdown: mean ± half a 95 % interval over seeds."""
    text = [
        "| method | balanced IoU | small | medium | large | steps, small / medium / large | "
        "Spearman(steps, area) | looks per object |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in lines[0]["rows"] if lines else ():
        sizes = [
            statistics.mean(values) for values in zip(*means(lines, row, "sizes"), strict=True)
        ]
        steps = [
            statistics.mean(values) for values in zip(*means(lines, row, "steps"), strict=True)
        ]
        correlation = [value for value in means(lines, row, "spearman") if value is not None]
        cells = [
            row,
            interval(means(lines, row, "iou"), 3),
            *(f"{size:.2f}" for size in sizes),
            " / ".join(f"{step:.2f}" for step in steps),
            interval(correlation, 2) if len(correlation) == len(lines) else "",
            f"{statistics.mean(means(lines, row, 'forwards')):.2f}",
        ]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def interval(values: list[float], digits: int) -> str:
    """Return mean and, of several values, half the normal 95 % interval."""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {1.96 * statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


if __name__ == "__main__":
    raise SystemExit(main())
