"""How far the gradients of batches agree: MobileNetV2 and sandglasses at equal multiply-adds.

    python benchmarks/gradient_confusion.py --root CIFAR10 --out confusion.jsonl
    python benchmarks/gradient_confusion.py --show confusion.jsonl

The networks and the training are those of the table ``blocks`` of accuracy.py, with fewer epochs
and no averaged weights. For each seed, 32 batches of 64 training pictures, not augmented and the
same for all networks, give one gradient each, before the training and after it (at the weights of
the epoch that was best on validation pictures); the cosines of all 496 pairs are kept. Each network
and seed is one line of JSON in the file, and is not repeated if it is there.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accuracy import SEEDS, key_of, read, rooted, runs

import foveal
from foveal.config import TrainConfig
from foveal.explanation import GradientConfusion, gradient_confusion
from foveal.tasks import make_setup

STATES = ("before", "after")
NUMBERS = ("mean", "std", "minimum", "share_negative")


def main(arguments: list[str] | None = None) -> int:
    """Run or show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", help="folder of CIFAR-10's Python pickles")
    parser.add_argument("--out", type=Path, help="file of JSON lines to add to")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max_steps", type=int, help="for a look at the command: fewer steps")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of a file")
    args = parser.parse_args(arguments)
    if args.show:
        print(show(args.show))
        return 0
    if args.root is None or args.out is None:
        parser.error("give --root and --out; or --show FILE")
    plan = list(runs("blocks", args.seeds))
    for number, (variant, config) in enumerate(plan, start=1):
        config = dataclasses.replace(
            config,
            data=rooted(config, [args.root]),
            threads=args.threads,
            epochs=args.epochs,
            max_steps=args.max_steps,
            ema=False,
        )
        setting = {"batches": args.batches, "batch_size": args.batch_size}
        key = f"{key_of(config)}-{args.batches}-{args.batch_size}"
        if any(line["key"] == key for line in read(args.out)):
            continue
        print(f"[{number}/{len(plan)}] {variant}, seed {config.seed}", file=sys.stderr)
        line = {"key": key, "variant": variant, **setting, **measure(config, **setting)}
        with args.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    print(show(args.out))
    return 0


def measure(config: TrainConfig, batches: int, batch_size: int) -> dict[str, Any]:
    """Train, and return the confusion before and after it."""
    start = time.monotonic()
    torch.set_num_threads(config.threads or 1)
    torch.manual_seed(config.seed)
    setup = make_setup(config)
    samples = list(drawn(setup, config.seed, batches, batch_size))
    found = {"before": gradient_confusion(setup.model, samples, most=batches)}
    with tempfile.TemporaryDirectory() as folder:
        run = foveal.train(dataclasses.replace(config, out=f"{folder}/run"))
        found["after"] = gradient_confusion(run.load(), samples, most=batches)
    return {
        "seed": config.seed,
        "epochs": config.epochs,
        "test_accuracy": run.metrics["test/accuracy"],
        **{state: written(confusion) for state, confusion in found.items()},
        "seconds": round(time.monotonic() - start, 1),
        "threads": config.threads,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }


def drawn(
    setup: Any, seed: int, batches: int, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of different training pictures, drawn by a seed and not augmented."""
    pictures = setup.splits["train"]
    if batches * batch_size > len(pictures):
        raise SystemExit(
            f"{batches} batches of {batch_size} need {batches * batch_size} training pictures, "
            f"and there are {len(pictures)}"
        )
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed)).tolist()
    for number in range(batches):
        chosen = order[number * batch_size : (number + 1) * batch_size]
        x = torch.stack([setup.preprocess(pictures.load(index)) for index in chosen])
        yield x, torch.as_tensor(pictures.targets[chosen]).long()


def written(confusion: GradientConfusion) -> dict[str, Any]:
    """Return a confusion as JSON has it."""
    numbers = {name: getattr(confusion, name) for name in NUMBERS}
    return {**numbers, "cosines": [round(cosine, 6) for cosine in confusion.cosines.tolist()]}


def show(path: Path) -> str:
    """Return a results file as a table in Markdown: mean ± standard deviation over seeds."""
    lines = read(path)
    text = [
        "| network | weights | mean cosine | standard deviation | smallest | below 0 | "
        "test accuracy | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, epochs in dict.fromkeys((line["variant"], line["epochs"]) for line in lines):
        own = [one for one in lines if (one["variant"], one["epochs"]) == (variant, epochs)]
        for state in STATES:
            cells = [over_seeds([line[state][name] for line in own]) for name in NUMBERS]
            accuracy = [line["test_accuracy"] for line in own]
            cells.append(over_seeds(accuracy) if state == "after" else "")
            text.append(
                f"| {variant} | {state} {epochs} epochs | {' | '.join(cells)} | {len(own)} |"
            )
    return "\n".join(text)


def over_seeds(values: list[float]) -> str:
    """Return mean and, of several values, standard deviation."""
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


if __name__ == "__main__":
    raise SystemExit(main())
