"""Semantic segmentation: name what each pixel of a picture shows."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from foveal.config import SegmentConfig
from foveal.data.loading import (
    Batch,
    SoundPictures,
    TransformedMasks,
    leave_out_damaged_masks,
    make_loader,
    probe_all,
)
from foveal.data.mask_transforms import MaskTrainTransform, WholePicture
from foveal.data.masks import IGNORED, MaskedPictures, RenumberedMasks
from foveal.data.sampling import TrainingBatches
from foveal.data.segmentation import read_segmentation
from foveal.data.transforms import WholePreprocess
from foveal.losses import WithAuxiliary, create_loss
from foveal.metrics import SegmentationScores
from foveal.models.input_size import check_input_size
from foveal.models.sliding_window import class_probabilities, most_probable
from foveal.names import unknown
from foveal.tasks.class_weights import balanced_weights
from foveal.tasks.progress import reading_bar
from foveal.tasks.report import Figure
from foveal.tasks.run import build_model
from foveal.tasks.setup import Setup, normalization_of
from foveal.tasks.task import Task

DEFAULT_IMAGE_SIZE = 480

WholeBatch = tuple[list[Tensor], list[Tensor], Tensor]
"""Pictures [C, H, W] of any sizes, their label maps [H, W], and their indices [B]."""


class SegmentTask(Task):
    """Train and score a network that names pixels.

    Args:
        config: the run.
        model: [B, C, H, W] -> logits [B, K, H, W]; while it trains a pair of such, if it has an
            auxiliary head.
        classes: names of the K classes.
        pixels: training pixels of each class, int64 [K], for class weights; None: no weights.
        window: side of the windows in which whole pictures are looked at; 0: whole.
        batches: sampler of the training batches; None where nothing is trained.
        loader: loader of those batches.
        pseudo: ``val`` and ``test`` where their masks are pseudo labels: the names of those scores
            begin with ``pseudo_``.
    """

    config: SegmentConfig
    scores: SegmentationScores

    def __init__(
        self,
        config: SegmentConfig,
        model: nn.Module,
        *,
        classes: tuple[str, ...],
        pixels: NDArray[np.int64] | None,
        window: int,
        batches: TrainingBatches | None = None,
        loader: DataLoader[Batch] | None = None,
        pseudo: Sequence[str] = (),
    ) -> None:
        weight = None if pixels is None else balanced_weights(pixels)
        if "ignore_index" in config.loss_args:
            raise ValueError(f"loss_args.ignore_index is {IGNORED} in every layout: leave it out")
        arguments = {**config.loss_args, "ignore_index": IGNORED}
        loss = create_loss(config.loss, len(classes), weight, **arguments)
        super().__init__(
            config,
            model,
            WithAuxiliary(loss, config.aux_weight, ignore_index=IGNORED),
            SegmentationScores(classes),
            monitor="pseudo_miou" if "val" in pseudo else "miou",
            batches=batches,
            loader=loader,
        )
        self.window = window
        self.pseudo = tuple(pseudo)

    def _finish_scores(self, prefix: str, scores: dict[str, float]) -> None:
        if prefix.rstrip("/") in self.pseudo:
            scores = {f"pseudo_{name}": value for name, value in scores.items()}
        super()._finish_scores(prefix, scores)

    def training_loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch of crops."""
        x, target, _ = batch
        loss: Tensor = self.loss(self.model(self.memory_format(x)), target)
        return loss

    def remarks(self) -> tuple[str, ...]:
        """Name the classes that the last scores leave out, and say where they mean little."""
        remarks = []
        shown = self.scores.shown
        if len(shown) < 2:
            what = f"nothing but {shown[0]}, so the scores say little" if shown else "no class"
            remarks.append(f"the masks show {what} ({IGNORED} in a mask means ignored)")
        absent = self.scores.absent
        if absent and shown:
            names = ", ".join(absent)
            remarks.append(f"neither in the truth nor predicted, so left out of the mean: {names}")
        return tuple(remarks)

    def update_scores(self, batch: WholeBatch) -> None:
        """Add a batch of whole pictures to the scores."""
        pictures, targets, indices = batch
        maps = label_maps(self.evaluated_model, pictures, self.config, self.window)
        for index, target, labels in zip(indices, targets, maps, strict=True):
            self.scores.update(index, labels, target)


def label_maps(
    model: nn.Module, pictures: Iterable[Tensor], config: SegmentConfig, window: int
) -> Iterator[Tensor]:
    """Yield the class of each pixel of whole pictures, int64 [H, W], as a run looks at them.

    Args:
        model: the network, in eval mode.
        pictures: preprocessed, each [C, H, W], on the network's device.
        config: of the run.
        window: side of the windows; 0: whole pictures.
    """
    for probabilities in probability_maps(model, pictures, config, window):
        yield most_probable(probabilities)


def probability_maps(
    model: nn.Module, pictures: Iterable[Tensor], config: SegmentConfig, window: int
) -> Iterator[Tensor]:
    """Yield the probability of each class in each pixel, [K, H, W]; see :func:`label_maps`."""

    def look(x: Tensor) -> Any:
        return model(
            x.to(memory_format=torch.channels_last) if config.channels_last else x.contiguous()
        )

    sliding = config.sliding
    yield from class_probabilities(
        look,
        pictures,
        window=window,
        stride=sliding.stride,
        scales=sliding.scales,
        flip=sliding.flip,
        long_side=sliding.long_side,
        window_batch=sliding.window_batch,
    )


class SegmentSetup(Setup):
    """Data, network and pictures of a segmentation run.

    Args:
        config: the run.
        model: a trained network, for evaluation; its classes, colours and preprocessing are kept,
            and the data's classes are matched to them by name.
        splits: those that will be used.

    Raises:
        ValueError: the data do not fit; one sentence says where and what would be right.
    """

    config: SegmentConfig
    splits: dict[str, MaskedPictures]
    preprocess: WholePreprocess

    def __init__(
        self,
        config: SegmentConfig,
        model: nn.Module | None = None,
        splits: Sequence[str] = ("train", "val", "test"),
    ) -> None:
        data = read_segmentation(
            config.data.root,
            config.data.layout,
            labels=config.data.labels,
            domain=config.data.domain,
            val_fraction=config.data.val_fraction,
            test_fraction=config.data.test_fraction,
            split_seed=config.data.split_seed,
        )
        self.layout, self.origins = data.layout, dict(data.origins)
        self.splits = dict(data.splits)
        self.notes = data.notes
        self.colors = data.colors
        # What is tested: of a trained network the split that is evaluated.
        tested = "test" if model is None or not splits else splits[0]
        self.pseudo = [name for name, of in (("val", "val"), ("test", tested)) if of in data.pseudo]
        if model is None:
            data.require_training()
            image_size = config.data.image_size or data.image_size or DEFAULT_IMAGE_SIZE
            resolved = dataclasses.replace(config.data, image_size=image_size, layout=data.layout)
            self.config = dataclasses.replace(config, data=resolved)
            self.classes = data.classes
            self.model = build_model(self.config, data.classes)
            for side in {image_size, config.sliding.window or image_size}:
                check_input_size(self.model, side)
            self.preprocess = WholePreprocess(image_size=image_size, **normalization_of(self.model))
        else:
            self.config, self.model = config, model
            self.classes, self.preprocess = tuple(model.classes), model.preprocess  # type: ignore
            self.splits = {
                name: _with_classes(split, data.classes, self.classes)
                for name, split in self.splits.items()
            }
            self.colors = np.array(model.colors, np.uint8)
        self.window = window_of(self.config, self.preprocess)
        _check_stride(self.config, self.window)
        self.first_pass(splits)

    def sound(self, split: str, progress: Any) -> SoundPictures[MaskedPictures]:
        """Return a split without pictures that are damaged or do not fit their masks."""
        return leave_out_damaged_masks(self.splits[split], progress)

    def probe(self, split: str, progress: Any) -> None:
        """Look at a split; masks to be scored by are decoded, or one could end a trained run."""
        pictures = self.splits[split]
        files = self.config.data.root is not None
        look = pictures.labels if files and split != "train" else pictures.probe
        probe_all(len(pictures), look, progress)

    def label_bytes(self, split: str) -> bytes:
        """Return the names of the masks (their contents would take an epoch to read)."""
        pictures = self.splits[split]
        names = (os.path.basename(pictures.mask_name(index)) for index in range(len(pictures)))
        return "\0".join(names).encode(errors="surrogateescape")

    def batch_size(self, *, training: bool) -> int:
        """Return the number of crops, or of whole pictures, which may be large, in a batch."""
        size = super().batch_size(training=training)
        return size if training else min(size, self.config.sliding.window_batch)

    def loader(
        self, split: str, batches: TrainingBatches, *, augmented: bool = False
    ) -> DataLoader[Any]:
        """Return batches of a split: crops in one tensor, or whole pictures as a list.

        Crops: (x [B, C, H, W], target [B, H, W], index [B]); whole pictures: :data:`WholeBatch`.
        """
        transform = (
            MaskTrainTransform(self.preprocess, self.config.augment)
            if augmented
            else WholePicture(self.preprocess)
        )
        return make_loader(
            TransformedMasks(self.splits[split], transform, self.config.seed),
            batches,
            workers=self.config.data.workers,
            pin_memory=self.config.device != "cpu" and torch.cuda.is_available(),
            stacked=augmented,
        )

    def task(self, *, training: bool = True) -> SegmentTask:
        """Return the network with its loss and scores, ready to train or only to evaluate."""
        batches = self.batches("train", shuffle=True) if training else None
        balanced = training and self.config.class_weights == "balanced"
        return SegmentTask(
            self.config,
            self.model,
            classes=self.classes,
            pixels=self._pixels("train") if balanced else None,
            window=self.window,
            batches=batches,
            loader=self.loader("train", batches, augmented=True) if batches else None,
            pseudo=self.pseudo,
        )

    def _pixels(self, split: str) -> NDArray[np.int64]:
        """Return the number of pixels of each class, int64 [K]."""
        pictures = self.splits[split]
        counts = np.zeros(256, np.int64)
        with reading_bar(f"counting the {split} pixels") as progress:
            for index in range(len(pictures)):
                counts += np.bincount(pictures.labels(index).ravel(), minlength=256)
                progress(index + 1, len(pictures))
        return counts[: len(self.classes)]

    def figures(self, task: Task, folder: Path) -> list[Figure]:
        """Draw pictures with truth and prediction, the classes' scores, and confusion."""
        from foveal.tasks import segment_figures

        assert isinstance(task, SegmentTask)
        return segment_figures.draw(task, self, folder)

    def weights_metadata(self) -> dict[str, str]:
        """Return the colours of the classes."""
        return {"colors": json.dumps(self.colors.tolist())}


def window_of(config: SegmentConfig, preprocess: WholePreprocess) -> int:
    """Return the side of the windows in which whole pictures are looked at; 0: whole."""
    window = config.sliding.window
    return preprocess.image_size if window is None else window


def _check_stride(config: SegmentConfig, window: int) -> None:
    stride = config.sliding.stride
    if window and stride is not None and stride > window:
        raise ValueError(
            f"sliding.stride must be at most the window's {window} pixels, not {stride}: pixels "
            "between the windows would be left out"
        )


def _with_classes(
    pictures: MaskedPictures, names: Sequence[str], wanted: Sequence[str]
) -> MaskedPictures:
    """Renumber a split's labels from one list of class names to another."""
    if tuple(names) == tuple(wanted):
        return pictures
    for name in names:
        if name not in wanted:
            raise ValueError("the data do not fit this run: " + unknown("class", name, wanted))
    table = np.full(256, IGNORED, np.uint8)
    table[: len(names)] = [wanted.index(name) for name in names]
    return RenumberedMasks(pictures, table)
