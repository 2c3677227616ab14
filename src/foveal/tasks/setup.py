"""What a task brings to a run beside its training: data, network, pictures for the report."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from foveal.config import TrainConfig
from foveal.data.loading import SoundPictures, probe_all
from foveal.data.sampling import BatchSampler, TrainingBatches
from foveal.data.transforms import Preprocess
from foveal.tasks.progress import reading_bar
from foveal.tasks.report import Figure
from foveal.tasks.task import Task

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Setup(ABC):
    """Everything of a run that depends on its task.

    Subclasses read the data in ``__init__`` and set these attributes; ``tasks/training.py``,
    ``evaluation.py`` and ``prediction.py`` need nothing else.

    Attributes:
        config: the config with every value resolved.
        classes: names, in the order of the network's outputs.
        model: the network.
        preprocess: what the network wants to see.
        layout: name of the data's layout.
        splits: the pictures of ``train``, ``val`` and ``test``.
        origins: where each split's pictures come from, one phrase each.
        notes: what a reader of the results should know about the data.
        left_out: one complaint for each damaged picture that was left out.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    model: nn.Module
    preprocess: Preprocess
    layout: str
    splits: dict[str, Any]
    origins: dict[str, str]
    notes: tuple[str, ...]
    left_out: list[str]

    @abstractmethod
    def loader(
        self, split: str, batches: TrainingBatches, *, augmented: bool = False
    ) -> DataLoader[Any]:
        """Return batches of a split."""

    @abstractmethod
    def task(self, *, training: bool = True) -> Task:
        """Return :attr:`model` with its loss and scores, ready to train or only to evaluate."""

    @abstractmethod
    def figures(self, task: Task, folder: Path) -> list[Figure]:
        """Draw the tested task's pictures into a folder."""

    @abstractmethod
    def sound(self, split: str, progress: Any) -> SoundPictures[Any]:
        """Return a split without its damaged pictures."""

    @abstractmethod
    def label_bytes(self, split: str) -> bytes:
        """Return what changes with the labels of a split."""

    def size(self, split: str) -> int:
        """Return the number of pictures of a split."""
        return len(self.splits[split])

    def probe(self, split: str, progress: Any) -> None:
        """Look at a split's pictures; damage behind their headers is found when they are read.

        Raises:
            ValueError: one cannot be used.
        """
        probe_all(self.size(split), self.splits[split].probe, progress)

    def first_pass(self, splits: Sequence[str]) -> None:
        """Find damaged pictures before time is spent on training; sets :attr:`left_out`."""
        self.left_out = []
        # Splits may share pictures (a layout without a test part): look at each once.
        seen: dict[int, Any] = {}
        for name in splits:
            split = self.splits[name]
            if id(split) not in seen:
                with reading_bar(f"looking at the {name} pictures") as progress:
                    if self.config.data.on_error == "skip":
                        sound = self.sound(name, progress)
                        seen[id(split)] = sound.pictures
                        self.left_out += sound.damaged
                    else:
                        self.probe(name, progress)
                        seen[id(split)] = split
            self.splits[name] = seen[id(split)]

    def fingerprint(self) -> dict[str, str]:
        """Return number, and a hash of classes, file names and labels, of each split.

        The folder that holds them does not matter: data may move between a run and its resumption.
        """
        prints = {}
        for name, split in self.splits.items():
            digest = hashlib.blake2b(repr(self.classes).encode(), digest_size=8)
            digest.update(self.label_bytes(name))
            for index in range(len(split)):
                digest.update(os.path.basename(split.name(index)).encode(errors="surrogateescape"))
            prints[name] = f"{len(split)} pictures, {digest.hexdigest()}"
        return prints

    def weights_metadata(self) -> dict[str, str]:
        """Return what else the file of weights is to tell, as texts by name."""
        return {}

    def records(self) -> dict[str, str]:
        """Return what else the run folder is to tell of the data: file names and their texts."""
        return {}

    def batch_size(self, *, training: bool) -> int:
        """Return the number of pictures in a batch of one process."""
        assert self.config.data.batch_size is not None
        return self.config.data.batch_size

    def batches(self, split: str, *, shuffle: bool = False) -> TrainingBatches:
        """Return this process's batches of a split, in training order or in evaluation's."""
        return BatchSampler(
            self.size(split),
            self.batch_size(training=shuffle),
            shuffle=shuffle,
            seed=self.config.seed,
            rank=int(os.environ.get("RANK", "0")),
            world_size=int(os.environ.get("WORLD_SIZE", "1")),
        )

    def evaluation_loader(self, split: str) -> DataLoader[Any]:
        """Return a split in order, nothing random, nothing padded."""
        return self.loader(split, self.batches(split))

    def describe(self) -> str:
        """Say what the data is: the layout, a line per split, notes."""
        head = f"data: {self.config.data.root or 'built-in'}, layout {self.layout}"
        splits = [
            f"{split:5s} {self.size(split):7,d} pictures: {origin}"
            for split, origin in self.origins.items()
        ]
        return "\n".join([head, *splits, *self.notes])


def normalization_of(model: nn.Module) -> dict[str, Any]:
    """Return what fields of :class:`Preprocess` a network's ``default_cfg`` tells.

    They are ``mean``, ``std``, ``interpolation`` and ``channel_order``.
    """
    cfg: Mapping[str, Any] = getattr(model, "default_cfg", {})
    mean, std = tuple(cfg.get("mean", IMAGENET_MEAN)), tuple(cfg.get("std", IMAGENET_STD))
    if getattr(model, "in_chans", 3) == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return {
        "mean": mean,
        "std": std,
        "interpolation": cfg.get("interpolation", "bilinear"),
        "channel_order": cfg.get("channel_order", "rgb"),
    }
