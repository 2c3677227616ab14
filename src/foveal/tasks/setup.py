"""What a task brings to a run beside its training: data, network, pictures for the report."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from foveal.config import TrainConfig
from foveal.data.sampling import BatchSampler
from foveal.data.transforms import Preprocess
from foveal.tasks.report import Figure
from foveal.tasks.task import Task


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
        origins: where each split's pictures come from, one phrase each.
        notes: what a reader of the results should know about the data.
        left_out: one complaint for each damaged picture that was left out.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    model: nn.Module
    preprocess: Preprocess
    layout: str
    origins: dict[str, str]
    notes: tuple[str, ...]
    left_out: list[str]

    @abstractmethod
    def size(self, split: str) -> int:
        """Return the number of pictures of a split."""

    @abstractmethod
    def loader(
        self, split: str, batches: BatchSampler, *, augmented: bool = False
    ) -> DataLoader[Any]:
        """Return batches of a split."""

    @abstractmethod
    def task(self, *, training: bool = True) -> Task:
        """Return :attr:`model` with its loss and scores, ready to train or only to evaluate."""

    @abstractmethod
    def figures(self, task: Task, folder: Path) -> list[Figure]:
        """Draw the tested task's pictures into a folder."""

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """Return a short text per split that changes with its pictures, their order or labels.

        The folder that holds them does not matter: data may move between a run and its resumption.
        """

    def records(self) -> dict[str, str]:
        """Return what else the run folder is to tell of the data: file names and their texts."""
        return {}

    def batches(self, split: str, *, shuffle: bool = False) -> BatchSampler:
        """Return this process's batches of a split."""
        return BatchSampler(
            self.size(split),
            self.config.data.batch_size,
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
