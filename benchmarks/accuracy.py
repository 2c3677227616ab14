"""What layers, blocks, heads and losses do to accuracy: small data sets, several seeds each.

    python benchmarks/accuracy.py cifar10 --root CIFAR10 --out accuracy.jsonl
    python benchmarks/accuracy.py pacs --root PACS --out accuracy.jsonl
    python benchmarks/accuracy.py blocks --root CIFAR10 --out accuracy.jsonl
    python benchmarks/accuracy.py fashion_clean --root FashionMNIST --out losses.jsonl
    python benchmarks/accuracy.py fashion_noise20 --root FashionMNIST --out losses.jsonl
    python benchmarks/accuracy.py fashion_noise40 --root FashionMNIST --out losses.jsonl
    python benchmarks/accuracy.py cifar10_losses --root CIFAR10 --out losses.jsonl
    python benchmarks/accuracy.py scenes_fine --out losses.jsonl
    python benchmarks/accuracy.py camvid_heads --root CamVid --out camvid.jsonl
    python benchmarks/accuracy.py camvid_deeplabv3 --root CamVid --out camvid.jsonl
    python benchmarks/accuracy.py vit_depth --root CIFAR10 --out depth.jsonl
    python benchmarks/accuracy.py dense --root SALIENCY EDGES SKELETONS --out dense.jsonl
    python benchmarks/accuracy.py dense_scenes --out dense.jsonl
    python benchmarks/accuracy.py --show accuracy.jsonl

Each finished run is one line of JSON in the file, under a hash of its config; runs that are there
are not repeated, so the command can be stopped and given again. ``--tune`` runs the learning rates
to choose from on the first variant and another seed, and compares them on validation pictures.
"""

import argparse
import csv
import dataclasses
import hashlib
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import foveal
from foveal.config import (
    AugmentConfig,
    ClassifyConfig,
    DataConfig,
    DenseAugmentConfig,
    DenseConfig,
    DenseDataConfig,
    Insertion,
    MapScoresConfig,
    MapSetConfig,
    SegmentAugmentConfig,
    SegmentConfig,
    SlidingConfig,
    TrainConfig,
    to_dict,
)
from foveal.data.classification import read_classification
from foveal.explanation import attention_collapse
from foveal.models import count

SEEDS = (0, 1, 2)
TUNING_SEEDS = {  # PACS has 84 pictures to validate with
    "cifar10": (100,),
    "pacs": (100, 101),
    "fashion_noise20": (100,),
    "cifar10_losses": (100,),
    "scenes_fine": (100,),
    "camvid_heads": (100,),
    "camvid_deeplabv3": (100,),
    "vit_depth": (100,),
    "dense": (100,),
    "dense_scenes": (100,),
}
RATES = (1e-3, 3e-3, 6e-3)

# Variant -> what it changes in the table's config; the recipe and the starting rule are the same.
ATTENTION: dict[str, dict[str, Any]] = {
    "plain": {"model": "mobilenetv2", "model_args": {"width": 0.5}},
    "squeeze-and-excitation": {"model": "mobilenetv2_050_se"},
    "CBAM": {"model": "mobilenetv2_050_cbam"},
    "coordinate": {"model": "mobilenetv2_050_coordinate"},
    "triplet": {"model": "mobilenetv2_050_triplet"},
}
# Multiply-adds at 32 pixels within 2 % of the first row's.
SANDGLASSES = {"width": 0.4, "block": "sandglass"}
BLOCKS: dict[str, dict[str, Any]] = {
    "MobileNetV2 0.5": {"model": "mobilenetv2", "model_args": {"width": 0.5}},
    "MobileNetV2 0.4 of sandglasses": {"model": "mobilenetv2", "model_args": SANDGLASSES},
    "MobileNeXt 0.46": {"model": "mobilenext", "model_args": {"width": 0.46}},
}
LOSSES: dict[str, dict[str, Any]] = {
    "cross entropy": {},
    "label smoothing": {"loss": "label_smoothing"},
    "symmetric cross entropy": {"loss": "symmetric_cross_entropy"},
    "generalised cross entropy": {"loss": "generalized_cross_entropy"},
    "online label smoothing": {"loss": "online_label_smoothing"},
}
# Ten classes: what the online label smoothing authors took for CIFAR-10.
LOSSES_10 = {
    **LOSSES,
    "symmetric cross entropy": {
        "loss": "symmetric_cross_entropy",
        "loss_args": {"alpha": 0.1, "beta": 1.0},
    },
}
# Gates stand where SPNet has them: in the last block of each stage and in all of the last stage.
HEADS: dict[str, dict[str, Any]] = {
    "plain": {"model_args": {"gate": None, "context": None}},
    "pyramid pooling": {"model_args": {"gate": None, "context": "pyramid"}},
    "global-average gates": {"model_args": {"gate": "se", "context": None}},
    "mixed pooling": {"model_args": {"gate": None, "context": "mixed"}},
    "mixed pooling, strip pooling gates": {"model_args": {"gate": "strip", "context": "mixed"}},
}
DEEPLABV3: dict[str, dict[str, Any]] = {
    "as it is": {"backbone": "mobilenetv2", "backbone_args": {"width": 0.5}},
    "mixed pooling inserted": {
        "backbone": "mobilenetv2",
        "backbone_args": {"width": 0.5},
        "insert": (Insertion(layer="mixed", where="head.aspp"),),
    },
    "coordinate attention in the backbone": {"backbone": "mobilenetv2_050_coordinate"},
}


@dataclasses.dataclass(frozen=True)
class Table:
    """Variants on one data set, the settings that they share, and the scores to show."""

    variants: dict[str, dict[str, Any]]
    config: TrainConfig
    scores: tuple[str, ...] = ("test/accuracy", "val/accuracy")


CIFAR10 = ClassifyConfig(
    data=DataConfig(layout="cifar", image_size=32, batch_size=64, workers=0),
    model_args={"stem_stride": 1},
    augment=AugmentConfig(min_scale=1.0, padding=2),
    epochs=12,
    lr=6e-3,  # chosen by --tune
    ema=True,
    ema_decay=0.99,
)
PACS = dataclasses.replace(
    CIFAR10,
    data=DataConfig(layout="csv", image_size=96, batch_size=32, workers=0),
    model_args={},
    augment=AugmentConfig(min_scale=0.35),
    epochs=30,
)
FASHION = ClassifyConfig(
    data=DataConfig(layout="idx", image_size=28, batch_size=64, workers=0),
    model="test_resnet",  # timm's smallest ResNet, 0.37 million parameters
    augment=AugmentConfig(min_scale=1.0, padding=2),
    epochs=12,
    lr=6e-3,  # chosen by --tune
    fgsm=0.01,
)
VALIDATED = ("val/accuracy", "val/miou", "val/mean")
SCORES = ("test/accuracy", "last/accuracy", "test/ece", "test/nll", "test/accuracy_fgsm")


def noisy(rate: float) -> ClassifyConfig:
    """Return the fashion recipe with a share of wrong training labels."""
    data = dataclasses.replace(FASHION.data, label_noise=rate)
    return dataclasses.replace(FASHION, data=data)


CIFAR10_LOSSES = dataclasses.replace(
    FASHION,
    data=dataclasses.replace(FASHION.data, layout="cifar", image_size=32),
    epochs=20,
    lr=3e-3,  # chosen by --tune
)
SCENES_FINE = dataclasses.replace(
    FASHION,
    data=dataclasses.replace(FASHION.data, layout="scenes", labels="fine", image_size=64),
    augment=AugmentConfig(min_scale=0.5),
    epochs=8,  # the rate was tuned with --epochs 5
)
# A quarter of ResNet-26's channels. Without class weights nothing thin is found in so few epochs.
CAMVID_HEADS = SegmentConfig(
    data=DataConfig(layout="camvid", image_size=176, batch_size=8, workers=0),
    model="spnet",
    model_args={"output_stride": 8},
    backbone="resnet26",
    backbone_args={"channels": [16, 32, 64, 128]},
    class_weights="balanced",
    augment=SegmentAugmentConfig(rotate=0.0, blur=0.0),
    sliding=SlidingConfig(window=0, flip=False),
    epochs=20,
    optimizer="adamw",
    lr=3e-3,
    weight_decay=0.05,
    warmup_epochs=1.0,
    head_lr_scale=1.0,
)  # the rate was chosen by --tune
CAMVID_DEEPLABV3 = dataclasses.replace(
    CAMVID_HEADS,
    model="deeplabv3",
    model_args={"output_stride": 16},
    backbone=None,
    backbone_args={},
    epochs=30,
    lr=6e-3,  # chosen by --tune with --epochs 20
)
# 17 tokens, so that 32 blocks can be trained within the hour.
VIT_DEPTH = ClassifyConfig(
    data=CIFAR10.data,
    model="deepvit",
    model_args={"img_size": 32, "patch_size": 8, "embed_dim": 96, "num_heads": 6},
    augment=CIFAR10.augment,
    epochs=20,
    optimizer="adamw",
    lr=1e-3,  # chosen by --tune
    weight_decay=0.05,
    warmup_epochs=2.0,
)
DEPTHS: dict[str, dict[str, Any]] = {
    f"{depth} blocks, {name}": {"model_args": {"depth": depth, "re_attention": mixing}}
    for depth in (12, 24, 32)
    for name, mixing in (("plain", 0), ("re-attention", None))
}
TASKS = ("saliency", "edge", "skeleton")
JOINT: dict[str, dict[str, Any]] = {
    "one network, selection": {"tasks": TASKS},
    "one network, summation": {"tasks": TASKS, "model_args": {"selected": None}},
    **{f"{task} alone, selection": {"tasks": (task,)} for task in TASKS},
}
# As many pictures of each set in an epoch as it has: each task sees the same pictures as often,
# whether it learns alone or together with others.
DENSE = DenseConfig(
    data=DenseDataConfig(
        saliency=MapSetConfig(layout="saliency", ratio=104),
        edge=MapSetConfig(layout="bsds500", ratio=280),
        skeleton=MapSetConfig(layout="sk_large", ratio=104),
        image_size=128,
        batch_size=6,
        workers=0,
    ),
    backbone="mobilenetv2",
    backbone_args={"width": 0.5},
    augment=DenseAugmentConfig(min_scale=0.5, max_scale=1.0, rotate=0.0),
    scores=MapScoresConfig(thresholds=19, val_thresholds=3),
    epochs=8,
    optimizer="adamw",
    lr=3e-3,  # chosen by --tune with --epochs 5
    weight_decay=0.05,
)
DENSE_SCENES = dataclasses.replace(
    DENSE,
    data=DenseDataConfig(layout="scenes", image_size=96, batch_size=8, workers=0),
    epochs=1,
    max_steps=400,
    lr=6e-3,  # chosen by --tune
    warmup_epochs=0.05,
)
DENSE_SCORES = (
    "test/saliency/max_f",
    "test/saliency/mae",
    "test/saliency/s_measure",
    "test/edge/ods",
    "test/edge/ois",
    "test/skeleton/ods",
    "test/skeleton/ois",
)
COLLAPSE = (
    "collapse/attention_similarity",
    "collapse/similar_blocks",
    "collapse/feature_similarity",
    "collapse/effective_rank",
)
DEPTH_SCORES = ("test/accuracy", "last/accuracy", *COLLAPSE)
THIN = ("Pole", "SignSymbol", "Fence")
CAMVID_SCORES = ("test/miou", *(f"test/iou/{name}" for name in THIN), "test/pixel_accuracy")
TABLES = {
    "cifar10": Table(ATTENTION, CIFAR10),
    "pacs": Table(ATTENTION, PACS),
    "blocks": Table(BLOCKS, CIFAR10),
    "fashion_clean": Table(LOSSES_10, FASHION, SCORES),
    "fashion_noise20": Table(LOSSES_10, noisy(0.2), SCORES),
    "fashion_noise40": Table(LOSSES_10, noisy(0.4), SCORES),
    "cifar10_losses": Table(LOSSES_10, CIFAR10_LOSSES, SCORES),
    "scenes_fine": Table(LOSSES, SCENES_FINE, SCORES),
    "camvid_heads": Table(HEADS, CAMVID_HEADS, CAMVID_SCORES),
    "camvid_deeplabv3": Table(DEEPLABV3, CAMVID_DEEPLABV3, CAMVID_SCORES),
    "vit_depth": Table(DEPTHS, VIT_DEPTH, DEPTH_SCORES),
    "dense": Table(JOINT, DENSE, DENSE_SCORES),
    "dense_scenes": Table(JOINT, DENSE_SCENES, DENSE_SCORES),
}


def main() -> int:
    """Run or show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("table", nargs="?", choices=list(TABLES))
    parser.add_argument(
        "--root", nargs="+", help="folder of the data set; of dense, one for each task"
    )
    parser.add_argument("--out", type=Path, help="file of JSON lines to add to")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="some of the seeds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="for a look at the command: fewer epochs")
    parser.add_argument("--tune", action="store_true", help="compare learning rates instead")
    parser.add_argument("--steps", action="store_true", help="time training steps instead")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a file")
    args = parser.parse_args()
    if args.show:
        print(show(args.show))
        return 0
    if args.steps and not isinstance(
        TABLES.get(args.table, TABLES["cifar10"]).config, ClassifyConfig
    ):
        parser.error(f"--steps is for tables of classification, not {args.table}")
    if args.table is not None and args.steps:
        print(steps(args.table, args.threads))
        return 0
    if args.table is None or args.out is None:
        parser.error("name a table and --out; or a table and --steps; or --show FILE")
    built_in = TABLES[args.table].config.data.layout == "scenes"
    if built_in != (args.root is None):
        parser.error(f"{args.table} {'needs no' if built_in else 'needs'} --root")
    if args.root is not None and len(args.root) != (3 if args.table == "dense" else 1):
        parser.error(f"{args.table} needs {'three folders' if args.table == 'dense' else 'one'}")
    if args.tune and args.table not in TUNING_SEEDS:
        parser.error(
            f"--tune is for {', '.join(TUNING_SEEDS)}: the others have the recipe of one of these"
        )
    with tempfile.TemporaryDirectory() as folder:
        roots: list[str] = args.root or []
        if args.table == "dense":
            roots[1] = str(bsds_links(Path(roots[1]), Path(folder)))
        if args.table == "pacs":
            roots = [str(pacs_list(Path(roots[0]), Path(folder)))]
        plan = list(tuning(args.table) if args.tune else runs(args.table, args.seeds))
        for number, (variant, config) in enumerate(plan, start=1):
            config = dataclasses.replace(
                config,
                data=rooted(config, roots),
                threads=args.threads,
                epochs=args.epochs or config.epochs,
            )
            key = key_of(config)
            table = f"{args.table} (tuning)" if args.tune else args.table
            done = {line["key"]: line for line in read(args.out)}  # another table may share a run
            if done.get(key, {}).get("table") == table:
                continue
            print(f"[{number}/{len(plan)}] {variant}, seed {config.seed}", file=sys.stderr)
            result = done[key] if key in done else measure(config)
            line = {**result, "key": key, "table": table, "variant": variant}
            with args.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print(show(args.out))
    return 0


def runs(table: str, seeds: Sequence[int] = SEEDS) -> Iterator[tuple[str, TrainConfig]]:
    """Yield the runs of a table, seed by seed, so that a part of it is a fair table too."""
    for seed in seeds:
        for variant, changes in TABLES[table].variants.items():
            config = dataclasses.replace(TABLES[table].config, seed=seed)
            arguments = {**config.model_args, **changes.get("model_args", {})}
            yield variant, dataclasses.replace(config, **{**changes, "model_args": arguments})


def tuning(table: str) -> Iterator[tuple[str, TrainConfig]]:
    """Yield the first variant of a table with each learning rate, at other seeds."""
    variant, config = next(runs(table))
    for seed in TUNING_SEEDS[table]:
        for rate in RATES:
            yield f"{variant}, lr {rate:g}", dataclasses.replace(config, lr=rate, seed=seed)


def rooted(config: TrainConfig, roots: Sequence[str]) -> DataConfig:
    """Return where a run's pictures are."""
    if len(roots) < 2:
        return dataclasses.replace(config.data, root=roots[0] if roots else None)
    assert isinstance(config, DenseConfig)
    sets: Any = {
        task: dataclasses.replace(config.data.of(task), root=root)
        for task, root in zip(TASKS, roots, strict=True)
        if task in config.tasks
    }
    return dataclasses.replace(config.data, **sets)


def measure(config: TrainConfig) -> dict[str, Any]:
    """Train, and return what the table needs."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = foveal.train(dataclasses.replace(config, out=f"{folder}/run"))
        side = config.data.image_size or 224
        model = run.load()
        counts = count(model, (3, side, side))
        more = collapse(model, config) if config.model == "deepvit" else {}
        with (run.path / "metrics.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
    scores = {f"last/{k.removeprefix('val/')}": float(last[k]) for k in last if k in VALIDATED}
    return {
        "seed": config.seed,
        "scores": {**run.metrics, **scores, **more},
        "seconds": round(time.monotonic() - start, 1),
        "parameters": counts.parameters,
        "multiply_adds": counts.multiply_adds,
        "threads": config.threads,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }


def collapse(model: torch.nn.Module, config: TrainConfig) -> dict[str, float]:
    """Return how alike successive blocks are on the first 200 test pictures."""
    assert isinstance(config, ClassifyConfig)
    pictures = read_classification(config.data.root, config.data.layout).splits["test"]
    x = torch.stack([model.preprocess(pictures.load(i)) for i in range(200)])
    found = attention_collapse(model, x.split(50))
    return {
        "collapse/attention_similarity": float(found.with_previous.mean()),
        "collapse/similar_blocks": float(found.similar_blocks),
        "collapse/feature_similarity": float(found.feature_similarity.diagonal(-1).mean()),
        "collapse/effective_rank": float(found.effective_rank[-1]),
        "collapse/head_diversity": float(found.head_diversity.mean()),
    }


def steps(table: str, threads: int, rounds: int = 21) -> str:
    """Return milliseconds of one training step of each variant, medians of interleaved rounds."""
    torch.set_num_threads(threads)
    networks, times = {}, {}
    for variant, config in itertools.islice(runs(table), len(TABLES[table].variants)):
        network = foveal.create_model(config.model, num_classes=10, **config.model_args)
        networks[variant] = network.to(memory_format=torch.channels_last)
        times[variant] = []
    side = config.data.image_size
    x = torch.randn(config.data.batch_size, 3, side, side).to(memory_format=torch.channels_last)
    target = torch.arange(len(x)) % 10
    for number in range(rounds + 1):
        for variant, network in networks.items():
            start = time.perf_counter()
            torch.nn.functional.cross_entropy(network(x), target).backward()
            if number:  # the first round warms up
                times[variant].append(1e3 * (time.perf_counter() - start))
    medians = {variant: statistics.median(found) for variant, found in times.items()}
    first = next(iter(medians.values()))
    lines = [f"| {v} | {ms:.0f} | {ms / first:.2f} |" for v, ms in medians.items()]
    return "\n".join(
        ["| network | ms per training step | times the first |", "|---|---|---|", *lines]
    )


def key_of(config: TrainConfig) -> str:
    """Return a hash of all that decides a run's result."""
    values = to_dict(config)
    values["data"].pop("root")
    for task in TASKS:
        values["data"].get(task, {}).pop("root", None)
    for name in ("threads", "out", "device"):
        values.pop(name)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def pacs_list(root: Path, folder: Path) -> Path:
    """Write a list of all domains' pictures with their classes: 21, 3, 6 of each thirty.

    The pictures of each domain and class are taken in the order of their names, every fifth and
    every seventh place aside, so that the parts do not depend on anything random.
    """
    path = folder / "pacs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        pictures = [p for p in root.rglob("*") if p.suffix in (".jpg", ".png")]
        classes = sorted({picture.parent for picture in pictures})  # domain/class
        for label in classes:
            for i, picture in enumerate(sorted(p for p in pictures if p.parent == label)):
                split = "test" if i % 5 == 4 else "val" if i % 7 == 3 else "train"
                writer.writerow([picture.resolve(), label.name, split])
    return path


def bsds_links(root: Path, folder: Path) -> Path:
    """Link BSDS500 anew: 280 pictures to train on, every fifth of the 100 to validate with."""
    data = next(path.parent for path in root.rglob("images") if (path / "test").is_dir())
    for split in ("train", "val", "test"):
        for number, picture in enumerate(sorted((data / "images" / split).glob("*.jpg"))):
            kept = "train" if split == "val" and number % 5 else split
            truth = data / "groundTruth" / split / f"{picture.stem}.mat"
            for kind, file in (("images", picture), ("groundTruth", truth)):
                link = folder / "BSDS500" / "data" / kind / kept / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
    return folder / "BSDS500"


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a results file; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def show(path: Path) -> str:
    """Return the tables of a results file as Markdown: mean ± standard deviation over seeds."""
    lines = read(path)
    text = []
    for table in dict.fromkeys(line["table"] for line in lines):
        rows = [line for line in lines if line["table"] == table]
        scores = TABLES[table.split()[0]].scores
        text += [
            "",
            f"{table}: {rows[0]['threads']} thread(s), torch {rows[0]['torch']}",
            "",
            f"| | parameters | multiply-adds | {' | '.join(scores)} | seeds | s/run |",
            "|---|---|---|" + len(scores) * "---|" + "---|---|",
        ]
        for variant in dict.fromkeys(row["variant"] for row in rows):
            own = [row for row in rows if row["variant"] == variant]
            seconds = statistics.mean(row["seconds"] for row in own)
            cells = [
                spread([row["scores"][s] for row in own], s.endswith("nll") or s in COLLAPSE)
                if s in own[0]["scores"]
                else "-"
                for s in scores
            ]
            text.append(
                f"| {variant} | {own[0]['parameters']:,d} | {own[0]['multiply_adds'] / 1e6:.2f} M "
                f"| {' | '.join(cells)} "
                f"| {', '.join(str(row['seed']) for row in own)} | {seconds:.0f} |"
            )
    return "\n".join(text).strip()


def spread(values: list[float], plain: bool = False) -> str:
    """Return mean ± standard deviation, of fractions in per cent."""
    scale, digits, unit = (1, 3, "") if plain else (100, 1, " %")
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean + unit
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}{unit}"


if __name__ == "__main__":
    raise SystemExit(main())
