"""Data and configs small enough to train on in a second."""

import dataclasses
import os
import signal
import time
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import foveal
from foveal.config import (
    DENSE_TASKS,
    ActivationConfig,
    AugmentConfig,
    ClassifyConfig,
    DataConfig,
    DenseAugmentConfig,
    DenseConfig,
    DenseDataConfig,
    MapScoresConfig,
    MiningConfig,
    SegmentAugmentConfig,
    SegmentConfig,
    SlidingConfig,
    WeakClassifierConfig,
    WeakConfig,
)
from foveal.data.layouts import LAYOUTS, Layout
from foveal.data.masks import FoundMasks
from foveal.data.parts import Found
from foveal.data.transforms import WholePreprocess
from foveal.models import TASK_NETWORKS
from foveal.models.activation_classifier import ActivationClassifier
from foveal.tasks.checkpointing import SaveRun
from foveal.tasks.run import WEIGHTS, save_weights, write_config

COLORS = {"amber": (230, 160, 30), "blue": (40, 60, 220), "coral": (240, 90, 90)}


@pytest.fixture(scope="session")
def colors(tmp_path_factory):
    """Return a folder of noisy colour patches: 3 classes, 10 train, 3 val and 5 test each."""
    root = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 3), ("test", 5)):
        for name, color in COLORS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.normal(0, 40, (24, 24, 3))
                array = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(array).save(folder / f"{i}.png")
    return root


@pytest.fixture
def config(colors, tmp_path):
    """Return a run of a few steps with everything random switched on."""
    return ClassifyConfig(
        data=DataConfig(root=str(colors), image_size=24, batch_size=6, workers=0),
        augment=AugmentConfig(hflip=0.5, min_scale=0.5, mixup=0.2),
        model="test_efficientnet",
        model_args={"drop_rate": 0.2, "drop_path_rate": 0.1},
        epochs=3,
        lr=3e-3,
        ema=True,
        ema_decay=0.9,
        device="cpu",
        threads=1,
        out=str(tmp_path / "run"),
    )


@pytest.fixture
def replaced():
    """Return a function that changes fields of a config, those of ``data`` too."""

    def replace(config, **changes):
        own = {f.name for f in dataclasses.fields(config.data)}
        data = {key: value for key, value in changes.items() if key in own}
        rest = {key: value for key, value in changes.items() if key not in own}
        return dataclasses.replace(config, data=dataclasses.replace(config.data, **data), **rest)

    return replace


@pytest.fixture
def interrupt_after():
    """Return a function that lets a run press Ctrl-C once the optimiser has made some steps."""

    def press(monkeypatch, steps):
        original = SaveRun.on_train_batch_end

        def hook(self, trainer, *args):
            if trainer.global_step == steps:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)  # Python runs the handler between two instructions
            original(self, trainer, *args)

        monkeypatch.setattr(SaveRun, "on_train_batch_end", hook)

    return press


@pytest.fixture(scope="session")
def paint_patches():
    """Return a function that paints pictures with masks: 8 train, 3 val and 5 test of each.

    Grey ground with an orange disc and a blue bar on it, a frame of ignored pixels.
    """

    def paint(root, numbers=(0, 1, 2)):
        rng = np.random.default_rng(0)
        for part, count in (("train", 8), ("val", 3), ("test", 5)):
            for folder in ("images", "masks"):
                (root / part / folder).mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(32, 49, 2)
                rows, columns = np.mgrid[:height, :width]
                labels = np.zeros((height, width), np.uint8)
                labels[:, (at := rng.integers(2, width - 8)) : at + 6] = 2
                middle = rng.integers(10, height - 10), rng.integers(10, width - 10)
                labels[(rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < 64] = 1
                colors = np.array([(120, 120, 120), (240, 140, 20), (30, 50, 220)])
                pixels = colors[labels] + rng.normal(0, 15, (height, width, 3))
                mask = np.array(numbers, np.uint8)[labels]
                mask[[0, -1]] = 255
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                image.save(root / part / "images" / f"{i}.png")
                Image.fromarray(mask).save(root / part / "masks" / f"{i}.png")
        return root

    return paint


@pytest.fixture(scope="session")
def patches(paint_patches, tmp_path_factory):
    """Return a folder of such pictures, with the names of the classes."""
    root = paint_patches(tmp_path_factory.mktemp("patches"))
    (root / "classes.txt").write_text("ground\ndisc\nbar\n")
    return root


def small_segment_config(root, out):
    return SegmentConfig(
        data=DataConfig(root=str(root), image_size=32, batch_size=4, workers=0),
        augment=SegmentAugmentConfig(min_scale=0.8, max_scale=1.25, rotate=5, blur=0.2),
        sliding=SlidingConfig(flip=False),
        model="lraspp",
        model_args={"output_stride": 8},
        backbone="test_efficientnet",
        head_lr_scale=1.0,
        epochs=3,
        lr=0.05,
        device="cpu",
        threads=1,
        out=str(out),
    )


@pytest.fixture
def segment_config(patches, tmp_path):
    """Return a segmentation run of a few steps."""
    return small_segment_config(patches, tmp_path / "run")


@pytest.fixture(scope="session")
def segment_run(patches, tmp_path_factory):
    """Return a segmentation run that learned the three classes."""
    config = small_segment_config(patches, tmp_path_factory.mktemp("runs") / "segment")
    return foveal.train(dataclasses.replace(config, epochs=20, optimizer="adamw", lr=3e-3))


class Channels(nn.Module):
    """Maps whose answers can be worked out by hand: a task's logits are 12 times a colour, less 6.

    Red is saliency, green edges, blue skeletons.
    """

    def __init__(self, tasks, **kw):
        super().__init__()
        self.tasks = tasks
        self.scale = nn.Parameter(torch.tensor(12.0))

    def forward(self, x, tasks=None, *, sides=False):
        found = {}
        for task in self.tasks if tasks is None else tasks:
            channel = DENSE_TASKS.index(task)
            logits = self.scale * x[:, channel : channel + 1] - 6
            found[task] = (logits,) if sides else logits
        return found


@pytest.fixture
def make_dense_run(tmp_path, monkeypatch):
    """Return a function that writes a run folder of that network, as training would."""
    monkeypatch.setitem(TASK_NETWORKS, "channels", ("dense", Channels))

    def make(tasks=DENSE_TASKS, root=None, name="run", **changes):
        folder = tmp_path / name
        folder.mkdir()
        data = DenseDataConfig(root=root and str(root), workers=0, batch_size=2)
        fields = {"model": "channels", "tasks": tasks, "data": data, "device": "cpu", "threads": 1}
        scores = MapScoresConfig(thresholds=3)
        config = DenseConfig(**{**fields, "scores": scores, **changes})
        write_config(folder, config)
        preprocess = WholePreprocess(image_size=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        save_weights(folder / WEIGHTS, Channels(tasks), config, tasks, preprocess)
        return folder

    return make


@pytest.fixture(scope="session")
def mapped(paint_maps, tmp_path_factory):
    """Return such pictures with maps of all tasks."""
    return paint_maps(tmp_path_factory.mktemp("mapped"))


@pytest.fixture(scope="session")
def paint_maps():
    """Return a function that paints 2 training, 1 validation and 3 test pictures with maps.

    Red is their saliency map, green their edges, blue their skeletons; ``truth`` may change maps.
    """
    return painted_maps


def painted_maps(root, tasks=DENSE_TASKS, truth=lambda values: values):
    for part, count in (("train", 2), ("val", 1), ("test", 3)):
        for i in range(count):
            colors = np.zeros((40, 44 + 2 * i, 3), np.uint8)
            colors[12:30, 10 + i : 30, 0] = 255
            colors[12:30, 9 + i, 1] = 255
            colors[20, 12 + i : 30, 2] = 255
            write_picture(root / part / "images" / f"{part}_{i}.png", colors)
            for task in tasks:
                values = truth(colors[..., DENSE_TASKS.index(task)])
                write_picture(root / part / task / f"{part}_{i}.png", values)
    return root


def write_picture(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture(scope="session")
def paint_discs():
    """Return a function that paints pictures with maps of some tasks.

    Noisy dark ground with a bright disc, which is what stands out; its outline is the edge, its
    middle line the skeleton. By default 8 pictures to train on, 3 and 4 of val and test.
    """

    def paint(root, tasks=DENSE_TASKS, counts=(8, 3, 4), sides=(32, 41), seed=0):
        rng = np.random.default_rng(seed)
        for part, count in zip(("train", "val", "test"), counts, strict=True):
            for folder in ("images", *tasks):
                (root / part / folder).mkdir(parents=True)
            for i in range(count):
                height, width = (int(side) for side in rng.integers(*sides, 2))
                rows, columns = np.mgrid[:height, :width]
                top, left = rng.integers(10, height - 10), rng.integers(10, width - 10)
                distance = np.hypot(rows - top, columns - left)
                disc = distance < 8
                maps = {
                    "saliency": disc,
                    "edge": disc & (distance >= 7),
                    "skeleton": (rows == top) & (np.abs(columns - left) < 6),
                }
                pixels = 60 + 150 * disc[..., None] + rng.normal(0, 15, (height, width, 3))
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                image.save(root / part / "images" / f"{i}.png")
                for task in tasks:
                    Image.fromarray(maps[task]).save(root / part / task / f"{i}.png")
        return root

    return paint


@pytest.fixture(scope="session")
def discs(paint_discs, tmp_path_factory):
    """Return a folder of such pictures, with maps of all tasks."""
    return paint_discs(tmp_path_factory.mktemp("discs"))


TINY_TRUNK = {"layers": [1, 1, 1, 1], "channels": [8, 8, 12, 16]}


def small_dense_config(root, out):
    return DenseConfig(
        data=DenseDataConfig(root=str(root), image_size=32, batch_size=4, workers=0),
        augment=DenseAugmentConfig(rotate=5.0),
        scores=MapScoresConfig(thresholds=5, val_thresholds=2),
        backbone_args=TINY_TRUNK,
        epochs=2,
        warmup_epochs=0.0,
        device="cpu",
        threads=1,
        out=str(out),
    )


@pytest.fixture
def dense_config(discs, tmp_path):
    """Return a dense run of a few steps."""
    return small_dense_config(discs, tmp_path / "run")


@pytest.fixture(scope="session")
def dense_run(discs, tmp_path_factory):
    """Return a dense run that learned where the discs are."""
    config = small_dense_config(discs, tmp_path_factory.mktemp("runs") / "dense")
    return foveal.train(dataclasses.replace(config, epochs=8, lr=5e-3))


# Pictures with image labels, and masks to be scored by


class Toys:
    """Noisy grey ground with an orange disc, a blue bar, both or neither.

    The bar is class 0 and the disc class 1 of the image labels, the other way round in the masks.
    """

    CLASSES, LABELS = ("bar", "disc"), ("ground", "disc", "bar")

    def __init__(self, part, count):
        rng = np.random.default_rng(len(part))
        self.part, self.images, self.maps = part, [], []
        self.targets = np.zeros((count, 2), np.float32)
        for index in range(count):
            height, width = rng.integers(32, 49, 2)
            rows, columns = np.mgrid[:height, :width]
            labels = np.zeros((height, width), np.uint8)
            if index % 4 in (0, 1):
                labels[:, (at := rng.integers(2, width - 12)) : at + 10] = 2
            if index % 4 in (0, 2):
                y, x = rng.integers(10, height - 10), rng.integers(10, width - 10)
                labels[(rows - y) ** 2 + (columns - x) ** 2 < 49] = 1
            colors = np.array([(120, 120, 120), (240, 140, 20), (30, 50, 220)])
            pixels = colors[labels] + rng.normal(0, 8, (height, width, 3))
            self.images.append(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
            self.maps.append(labels)
            self.targets[index] = (2 in labels, 1 in labels)

    def __len__(self):
        return len(self.images)

    def load(self, index):
        return self.images[index].copy()

    def decode(self, index):
        return self.load(index), "RGB"

    def probe(self, index):
        pass

    def name(self, index):
        return f"toys-{self.part}[{index}]"


class ToyMasks(Toys):
    """The same with masks."""

    def load(self, index):
        return self.images[index].copy(), self.labels(index)

    def decode(self, index):
        return *self.load(index), "RGB", "L"

    def labels(self, index):
        return self.maps[index].copy()

    def size(self, index):
        return self.images[index].size

    def mask_name(self, index):
        return self.name(index)


TOY_SIZES = {"train": 12, "val": 4, "test": 8}


def read_toys(multi_label):
    return Found(
        root="toys",
        classes=Toys.CLASSES,
        parts={part: Toys(part, size) for part, size in TOY_SIZES.items()},
        origins=dict.fromkeys(TOY_SIZES, "toys"),
        image_size=32,
        multi_label=multi_label,
    )


def read_toy_masks():
    return FoundMasks(
        root="toys",
        classes=Toys.LABELS,
        colors=np.array([(0, 0, 0), (255, 128, 0), (0, 0, 255)], np.uint8),
        parts={part: ToyMasks(part, size) for part, size in TOY_SIZES.items()},
        origins=dict.fromkeys(TOY_SIZES, "toys"),
        image_size=32,
    )


class Colors(nn.Module):
    """A backbone whose only map is a small copy of the picture."""

    feature_info = SimpleNamespace(channels=lambda: [3])
    default_cfg: ClassVar = {}

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return [self.scale * nn.functional.avg_pool2d(x, 2)]


def color_maps(num_classes=2, in_chans=3, pretrained=False):
    """Return a classifier whose activations are differences of colours from the start."""
    network = ActivationClassifier(Colors(), num_classes)
    blue_and_orange = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]])
    with torch.no_grad():
        network.classifier.weight.copy_(blue_and_orange[:num_classes, :, None, None])
    return network


@pytest.fixture(scope="module")
def toys():
    """Make the layout ``toys`` and the network ``color_maps`` known; return the layout's name."""
    with pytest.MonkeyPatch.context() as patch:
        layout = Layout(
            "toys",
            "classify",
            None,
            read_toys,
            built_in=True,
            multi_label=True,
            also={"segment": read_toy_masks},
        )
        patch.setitem(LAYOUTS, "toys", layout)
        patch.setitem(TASK_NETWORKS, "color_maps", ("classify", color_maps))
        yield "toys"


def small_weak_config(out):
    return WeakConfig(
        data=DataConfig(layout="toys", image_size=32, batch_size=4, workers=0),
        augment=SegmentAugmentConfig(min_scale=0.8, max_scale=1.25, rotate=0, blur=0),
        sliding=SlidingConfig(window=0, flip=False),
        model="lraspp",
        model_args={"output_stride": 8},
        backbone="test_efficientnet",
        head_lr_scale=1.0,
        epochs=8,
        optimizer="adamw",
        lr=5e-3,
        classifier=WeakClassifierConfig(
            model="color_maps", epochs=1, lr=1e-6, data=DataConfig(image_size=32, batch_size=4)
        ),
        activation=ActivationConfig(batch_size=4),
        mining=MiningConfig(max_steps=3),
        device="cpu",
        threads=1,
        out=str(out),
    )


@pytest.fixture
def weak_config(toys, tmp_path):
    """Return a run from image labels of a few seconds."""
    return small_weak_config(tmp_path / "run")


@pytest.fixture(scope="module")
def weak_run(toys, tmp_path_factory):
    """Return a run from image labels that learned the toys, in two rounds."""
    config = small_weak_config(tmp_path_factory.mktemp("runs") / "weak")
    return foveal.train(dataclasses.replace(config, rounds=2))
