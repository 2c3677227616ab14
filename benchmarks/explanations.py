"""Whether attention makes class activation maps better: deletion and insertion scores.

    python benchmarks/explanations.py --root PACS --out explanations.jsonl
    python benchmarks/explanations.py --show explanations.jsonl

The networks and the training are those of the table ``pacs`` of accuracy.py: MobileNetV2 0.5 plain
and with triplet attention. For each network, Grad-CAM and Grad-CAM++ of the predicted class are
computed for the same test pictures, and pixels are deleted and inserted in the order of the map; a
random map is the rival that any must beat. Each network and seed is one line of JSON in the file,
and is not repeated if it is there.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accuracy import SEEDS, key_of, pacs_list, read, rooted, runs

import foveal
from foveal.config import TrainConfig
from foveal.explanation import activation_maps, deletion_insertion
from foveal.tasks import make_setup

VARIANTS = ("plain", "triplet")
METHODS = ("gradcam", "gradcam++")
RANDOM = "random"


def main(arguments: list[str] | None = None) -> int:
    """Run or show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", type=Path, help="folder of PACS")
    parser.add_argument("--out", type=Path, help="file of JSON lines to add to")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--pictures", type=int, default=168, help="test pictures, evenly spread")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="for a look at the command: fewer epochs")
    parser.add_argument("--max_steps", type=int, help="likewise: fewer steps")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of a file")
    args = parser.parse_args(arguments)
    if args.show:
        print(show(args.show))
        return 0
    if args.root is None or args.out is None:
        parser.error("give --root and --out; or --show FILE")
    plan = [each for each in runs("pacs", args.seeds) if each[0] in VARIANTS]
    with tempfile.TemporaryDirectory() as folder:
        listed = str(pacs_list(args.root, Path(folder)))
        for number, (variant, config) in enumerate(plan, start=1):
            config = dataclasses.replace(
                config,
                data=rooted(config, [listed]),
                threads=args.threads,
                epochs=args.epochs or config.epochs,
                max_steps=args.max_steps,
            )
            key = f"{key_of(config)}-{args.pictures}"
            if key in {line["key"] for line in read(args.out)}:
                continue
            print(f"[{number}/{len(plan)}] {variant}, seed {config.seed}", file=sys.stderr)
            line = {"key": key, "variant": variant, **measure(config, args.pictures)}
            with args.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print(show(args.out))
    return 0


def measure(config: TrainConfig, pictures: int) -> dict[str, Any]:
    """Train, and return the scores of each method's maps, means over pictures."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = foveal.train(dataclasses.replace(config, out=f"{folder}/run"))
        model: Any = run.load()
        test: Any = make_setup(run.config).splits["test"]
        chosen = torch.linspace(0, len(test) - 1, min(pictures, len(test))).long().tolist()
        x = torch.stack([model.preprocess(test.load(index)) for index in chosen])
        accuracy = run.metrics["test/accuracy"]
    scores = {method: {"deletion": [], "insertion": []} for method in (*METHODS, RANDOM)}
    generator = torch.Generator().manual_seed(0)
    for some in torch.split(x, 16):
        for method, own in scores.items():
            if method == RANDOM:
                maps = torch.rand(len(some), *some.shape[2:], generator=generator)
                targets = None
            else:
                size = (some.shape[2], some.shape[3])
                found = activation_maps(model, some, method=method, size=size)
                maps, targets = found.maps[:, 0], found.targets[:, 0]
            result = deletion_insertion(model, some, maps, targets)
            own["deletion"] += result.deletion.tolist()
            own["insertion"] += result.insertion.tolist()
    means = {
        method: {name: statistics.mean(values) for name, values in own.items()}
        for method, own in scores.items()
    }
    return {
        "seed": config.seed,
        "accuracy": accuracy,
        "pictures": len(x),
        "scores": means,
        "seconds": round(time.monotonic() - start, 1),
        "threads": config.threads,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }


def show(path: Path) -> str:
    """Return the table of a results file as Markdown: mean ± standard deviation over seeds."""
    lines = read(path)
    rows = [
        "| network | accuracy | map | deletion, lower is better | insertion, higher is better |",
        "|---|---|---|---|---|",
    ]
    for variant in dict.fromkeys(line["variant"] for line in lines):
        own = [line for line in lines if line["variant"] == variant]
        accuracy = spread([100 * line["accuracy"] for line in own], 1)
        for method in own[0]["scores"]:
            cells = [
                spread([line["scores"][method][name] for line in own], 3)
                for name in ("deletion", "insertion")
            ]
            rows.append(f"| {variant} | {accuracy} % | {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def spread(values: list[float], digits: int) -> str:
    """Return mean ± standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    raise SystemExit(main())
