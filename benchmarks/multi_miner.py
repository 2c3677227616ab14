"""Whether stopping per object mines better regions than its ablations, with trained classifiers.

    python benchmarks/multi_miner.py --out multi_miner.jsonl
    python benchmarks/multi_miner.py --show multi_miner.jsonl

Each seed draws its own pictures: one to three objects of different classes and very different sizes
on a grey ground. An object is an ellipse in cells of 8 x 8 pixels whose colour is the more the
class's, the stronger the cell's evidence, and that is log-normal: few cells are strong, many hardly
differ from the ground. One cell of each object is strong, so that every object can be seen. A
classifier learns which classes a picture shows. Every way of mining is tuned on validation pictures
with their true masks, for the mean intersection over union of objects (the mean of three groups of
sizes), and then scored on test pictures. Networks for segmentation are trained on the labels that
come from the tuned ways, and on the true masks. Each seed is one line of JSON in the file, and is
not repeated if it is there.
"""

import argparse
import csv
import dataclasses
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import foveal
from foveal.config import (
    AugmentConfig,
    ClassifyConfig,
    DataConfig,
    SegmentAugmentConfig,
    SegmentConfig,
    SlidingConfig,
)
from foveal.metrics import confusion_matrix, iou_by_object_size, overlap, spearman
from foveal.mining import MiningConfig, MiningResult, Modulator, RegionMiner
from foveal.mining.activations import with_activations

SIDE, CELL = 96, 8
COLORS = {"blue": (-1, -1, 1), "green": (-1, 1, -1), "red": (1, -1, -1), "yellow": (1, 1, -1)}
COUNTS = {"train": 1200, "val": 200, "test": 300}
SEEDS = (0, 1, 2, 3, 4)
TAUS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
QUANTILES = (0.5, 0.8, 0.95)
STEPS = 6


# Pictures


def draw(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a picture [H, W, 3] and its mask [H, W]: 0 is the ground, then the classes."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    noise = rng.normal(0, 0.16, (SIDE // 12, SIDE // 12))
    grey = 0.5 + _smooth(noise) + rng.normal(0, 0.04, (SIDE, SIDE))
    picture = np.repeat(grey[:, :, None], 3, 2)
    picture += np.stack([_smooth(rng.normal(0, 0.02, noise.shape)) for _ in range(3)], 2)
    number = rng.integers(1, 4)
    classes = rng.choice(len(COLORS), number, replace=False)
    radii = np.sort(np.exp(rng.uniform(np.log(4), np.log(30), number)))[::-1]
    y, x = np.mgrid[:SIDE, :SIDE]
    for k, radius in zip(classes, radii, strict=True):  # small ones in front of large ones
        a, b = radius * np.exp(rng.uniform(-0.25, 0.25) * np.array([1, -1]))
        cy, cx = rng.uniform(4, SIDE - 4, 2)
        inside = ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 <= 1
        strength = np.clip(rng.lognormal(-0.7, 0.9, (SIDE // CELL, SIDE // CELL)), 0.05, 4)
        strength[int(cy) // CELL, int(cx) // CELL] = 2.5  # or some could not be seen at all
        strength = np.kron(strength, np.ones((CELL, CELL)))
        color = 0.09 * strength[:, :, None] * np.array(list(COLORS.values())[k])
        picture[inside] = (grey[:, :, None] + color)[inside]
        mask[inside] = k + 1
    return (255 * picture.clip(0, 1)).round().astype(np.uint8), mask


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    image = Image.fromarray(values.astype(np.float32)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    return np.asarray(image, np.float64)


def write_pictures(folder: Path, seed: int, counts: dict[str, int]) -> None:
    """Write pictures, masks, and a list of which classes each picture shows."""
    rng = np.random.default_rng(seed)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "labels", "split"])
        for split, count in counts.items():
            for kind in ("images", "masks"):
                (folder / kind / split).mkdir(parents=True)
            for number in range(count):
                picture, mask = draw(rng)
                name = f"{split}/{number:04d}.png"
                Image.fromarray(picture).save(folder / "images" / name)
                Image.fromarray(mask).save(folder / "masks" / name)
                shown = [n for k, n in enumerate(COLORS, 1) if (mask == k).any()]
                writer.writerow([f"images/{name}", ";".join(shown), split])
    (folder / "classes.txt").write_text("\n".join(["ground", *COLORS]) + "\n")


# Mining


@dataclass(frozen=True)
class Pictures:
    """Prepared pictures [N, 3, H, W], their masks [N, H, W] and labels [N, K]."""

    x: Tensor
    masks: Tensor
    labels: Tensor


def read(folder: Path, split: str, preprocess: Any) -> Pictures:
    """Read a split."""
    paths = sorted((folder / "images" / split).iterdir())
    x = torch.stack([preprocess(Image.open(path).convert("RGB")) for path in paths])
    arrays = [np.asarray(Image.open(folder / "masks" / split / path.name)) for path in paths]
    masks = torch.from_numpy(np.stack(arrays)).long()
    labels = torch.stack([(masks == k).flatten(1).any(1) for k in range(1, len(COLORS) + 1)], 1)
    return Pictures(x, masks, labels.long())


@dataclass(frozen=True)
class Scores:
    """How well objects were found."""

    balanced: float
    sizes: tuple[float, ...]
    mined_miou: float
    spearman: float
    steps: tuple[float, ...]
    forwards: float
    unmined: int


def score(found: MiningResult, pictures: Pictures) -> Scores:
    """Compare what was mined with the true masks."""
    pairs = found.pairs
    truth = pictures.masks[pairs[:, 0]] == pairs[:, 1, None, None] + 1
    sizes = iou_by_object_size(found.masks, truth)
    groups = torch.bucketize(sizes.area.double(), torch.tensor(sizes.edges).double(), right=True)
    steps = tuple(float(found.steps[groups == k].double().mean()) for k in range(3))
    confusion = confusion_matrix(found.to_label_map(), pictures.masks, len(COLORS) + 1)
    # The first look at a picture serves all its classes.
    forwards = 1 + float(found.forwards[1:].sum()) / len(pictures.x)
    return Scores(
        balanced=statistics.mean(sizes.means),
        sizes=sizes.means,
        mined_miou=overlap(confusion).miou,
        spearman=spearman(found.steps, sizes.area),
        steps=steps,
        forwards=forwards,
        unmined=len(found.unmined),
    )


WAYS: dict[str, dict[str, Any]] = {
    "CAM": {"adaptive": False, "max_steps": 1},
    "fixed steps": {"adaptive": False, "max_steps": STEPS},
    "merged mask": {"merged": True, "max_steps": STEPS},
    "joint stop": {"joint_stop": True, "max_steps": STEPS},
    "adaptive": {"max_steps": STEPS},
}


def settings(way: str) -> Iterator[MiningConfig]:
    """Yield the settings among which one is chosen."""
    adaptive = WAYS[way].get("adaptive", True)
    for tau, quantile in itertools.product(TAUS, QUANTILES if adaptive else QUANTILES[:1]):
        # A cell is as large as the smallest objects.
        yield MiningConfig(tau=tau, quantile=quantile, min_area=1, **WAYS[way])


def best(
    model: Any, way: str, thresholds: dict[float, Tensor], pictures: Pictures
) -> tuple[MiningConfig, float]:
    """Return the settings of a way that find objects best, and their score."""
    found = []
    for config in settings(way):
        mined = mine(model, config, thresholds, pictures)
        for steps in (config.max_steps,) if config.adaptive else range(1, config.max_steps + 1):
            value = score(mined.at_step(steps), pictures).balanced
            found.append((value, -steps, dataclasses.replace(config, max_steps=steps)))
    value, _, config = max(found, key=lambda one: one[:2])
    return config, value


def mine(
    model: Any, config: MiningConfig, thresholds: dict[float, Tensor], pictures: Pictures
) -> MiningResult:
    """Mine the regions of all objects of some pictures."""
    modulator = None
    if config.adaptive:
        modulator = Modulator(len(COLORS), config)
        modulator.thresholds.copy_(thresholds[config.quantile])
        modulator.calibrated.fill_(True)
    return RegionMiner(model, config, modulator).mine(pictures.x, pictures.labels)


def measure(seed: int, threads: int, epochs: int, counts: dict[str, int]) -> dict[str, Any]:
    """Train, mine and score, and return the line of a seed."""
    start = time.monotonic()
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder, seed, counts)
        classifier = foveal.train(classifier_config(folder, seed, threads, epochs))
        network: Any = classifier.load()
        model = with_activations(network)
        train, val, test = (read(folder, split, network.preprocess) for split in counts)
        thresholds = {quantile: calibrated(model, quantile, train) for quantile in QUANTILES}
        ways, masks = {}, {"true masks": train.masks}
        for way in WAYS:
            config, value = best(model, way, thresholds, val)
            found = score(mine(model, config, thresholds, test), test)
            ways[way] = {
                "tau": config.tau,
                "quantile": config.quantile if config.adaptive else None,
                "max_steps": config.max_steps,
                "val_balanced": value,
                **dataclasses.asdict(found),
            }
            if way in LABELLED:
                masks[way] = label_maps(model, config, thresholds, train)
        networks = {}
        for labels, maps in masks.items():
            replace_masks(folder, maps)
            run = foveal.train(segment_config(folder, labels, seed, threads, epochs // 2))
            networks[labels] = run.metrics["test/miou"]
        accuracy = right(network, test)
    return {
        "seed": seed,
        "classifier": accuracy,
        "classifier_map": classifier.metrics["test/map"],
        "ways": ways,
        "networks": networks,
        "seconds": round(time.monotonic() - start, 1),
        "threads": threads,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }


def calibrated(model: Any, quantile: float, pictures: Pictures) -> Tensor:
    """Return the modulator's threshold of each class."""
    modulator = Modulator(len(COLORS), MiningConfig(quantile=quantile))
    batches = zip(pictures.x.split(64), pictures.labels.split(64), strict=True)
    return modulator.calibrate(model, batches).thresholds.clone()


def label_maps(
    model: Any, config: MiningConfig, thresholds: dict[float, Tensor], pictures: Pictures
) -> Tensor:
    """Return what was mined in many pictures as label maps [N, H, W]."""
    parts = zip(*(t.split(200) for t in (pictures.x, pictures.masks, pictures.labels)), strict=True)
    return torch.cat(
        [mine(model, config, thresholds, Pictures(*part)).to_label_map() for part in parts]
    )


LABELLED = ("CAM", "adaptive")


def right(network: Any, pictures: Pictures) -> float:
    """Return the share of (picture, class) pairs that a classifier has right."""
    with torch.no_grad():
        logits = torch.cat([network(x) for x in pictures.x.split(64)])
    return float(((logits > 0) == pictures.labels.bool()).double().mean())


def replace_masks(folder: Path, maps: Tensor) -> None:
    """Give the training pictures other masks."""
    for number, one in enumerate(maps):
        path = folder / "masks" / "train" / f"{number:04d}.png"
        Image.fromarray(one.numpy().astype(np.uint8)).save(path)


def classifier_config(folder: Path, seed: int, threads: int, epochs: int) -> ClassifyConfig:
    """Return the classifier's run."""
    return ClassifyConfig(
        data=DataConfig(root=str(folder / "labels.csv"), image_size=SIDE, batch_size=32, workers=0),
        model="activation_classifier",
        model_args={"output_stride": 8},
        backbone="test_resnet",
        multi_label=True,
        augment=AugmentConfig(min_scale=1.0, padding=4),
        hide_weight=0.5,
        epochs=epochs,
        lr=3e-3,
        threads=threads,
        device="cpu",
        seed=seed,
        out=str(folder / "classifier"),
    )


def segment_config(folder: Path, way: str, seed: int, threads: int, epochs: int) -> SegmentConfig:
    """Return a run that learns from the masks of the folder."""
    return SegmentConfig(
        data=DataConfig(
            root=str(folder), layout="pairs", image_size=SIDE, batch_size=16, workers=0
        ),
        model="deeplabv3",
        backbone="test_resnet",
        model_args={"output_stride": 8},
        augment=SegmentAugmentConfig(min_scale=1.0, max_scale=1.0, rotate=0.0, blur=0.0),
        sliding=SlidingConfig(window=0, flip=False),
        epochs=epochs,
        lr=0.02,
        head_lr_scale=1.0,
        threads=threads,
        device="cpu",
        seed=seed,
        out=str(folder / f"network-{way}".replace(" ", "-")),
    )


# The table


def main(arguments: list[str] | None = None) -> int:
    """Run or show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="file of JSON lines to add to")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--counts",
        type=int,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        default=list(COUNTS.values()),
        help="pictures; fewer for a look at the command",
    )
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw some pictures and end")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of a file")
    args = parser.parse_args(arguments)
    if args.show:
        print(show(args.show))
        return 0
    if args.draw:
        sheet(args.seeds[0]).save(args.draw)
        return 0
    if args.out is None:
        parser.error("give --out; or --show FILE")
    for seed in args.seeds:
        key = f"{seed}-{args.epochs}-{'-'.join(map(str, args.counts))}"
        if key in {line["key"] for line in lines_of(args.out)}:
            continue
        print(f"seed {seed}", file=sys.stderr)
        counts = dict(zip(COUNTS, args.counts, strict=True))
        line = {"key": key, **measure(seed, args.threads, args.epochs, counts)}
        with args.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    print(show(args.out))
    return 0


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a results file, none if there is none yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def show(path: Path) -> str:
    """Return the tables of a results file as Markdown: mean ± standard deviation over seeds."""
    lines = lines_of(path)
    text = [
        f"classifier: {over([100 * one['classifier'] for one in lines], 1)} % of the labels right",
        "",
        "| way | balanced IoU | small | medium | large | mined_miou | steps S / M / L | "
        "Spearman | forwards per picture | nothing found |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        own = [one["ways"][way] for one in lines]
        sizes = [over([one["sizes"][k] for one in own], 2) for k in range(3)]
        steps = " / ".join(over([one["steps"][k] for one in own], 1, bare=True) for k in range(3))
        cells = [
            over([one["balanced"] for one in own]),
            *sizes,
            over([one["mined_miou"] for one in own]),
            steps,
            over([one["spearman"] for one in own], 2),
            over([one["forwards"] for one in own], 1),
            over([one["unmined"] for one in own], 1),
        ]
        text.append(f"| {way} | {' | '.join(cells)} |")
    text += ["", "| adaptive minus | balanced IoU, paired |", "|---|---|"]
    for way in WAYS:
        if way != "adaptive":
            gains = [o["ways"]["adaptive"]["balanced"] - o["ways"][way]["balanced"] for o in lines]
            text.append(f"| {way} | {over(gains)} |")
    text += ["", "| labels of the training pictures | test/miou of the network |", "|---|---|"]
    for labels in lines[0]["networks"] if lines else ():
        text.append(f"| {labels} | {over([one['networks'][labels] for one in lines])} |")
    return "\n".join(text)


def over(values: Sequence[float], digits: int = 3, bare: bool = False) -> str:
    """Return mean and, of several values, standard deviation."""
    known = [value for value in values if value == value]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.{digits}f}"
    if bare or len(known) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(known):.{digits}f}"


def sheet(seed: int) -> Image.Image:
    """Return some pictures with their masks beside them."""
    rng = np.random.default_rng(seed)
    canvas = Image.new("RGB", (8 * SIDE, 4 * SIDE))
    for number in range(16):
        picture, mask = draw(rng)
        place = (number % 4 * 2 * SIDE, number // 4 * SIDE)
        canvas.paste(Image.fromarray(picture), place)
        canvas.paste(Image.fromarray(mask * 60), (place[0] + SIDE, place[1]))
    return canvas


if __name__ == "__main__":
    raise SystemExit(main())
