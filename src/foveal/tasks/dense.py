"""Salient objects, edges and skeletons from one network that learns them together."""

import dataclasses
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from foveal.config import DENSE_TASKS, DenseConfig, DenseDataConfig, InferenceConfig
from foveal.data.dense import DenseData, read_dense, tasks_of
from foveal.data.joint import JointPictures, join
from foveal.data.loading import (
    DenseBatch,
    MapsToScore,
    SoundPictures,
    TransformedMaps,
    leave_out_damaged_maps,
    make_loader,
    probe_all,
)
from foveal.data.map_transforms import MapTrainTransform
from foveal.data.sampling import MixedBatchSampler, TrainingBatches
from foveal.data.transforms import WholePreprocess
from foveal.losses import MapLoss
from foveal.metrics import MapScores
from foveal.metrics.map_scores import MAIN
from foveal.models.input_size import check_input_size
from foveal.models.map_inference import picture_maps
from foveal.names import unknown
from foveal.tasks.counting_pool import EndCounting, counting_pool
from foveal.tasks.progress import reading_bar
from foveal.tasks.report import Figure
from foveal.tasks.run import build_model
from foveal.tasks.setup import Setup, normalization_of
from foveal.tasks.task import Task

DEFAULT_IMAGE_SIZE = 320
BATCH_SCORED = 4  # whole pictures, which may be large

WholeBatch = tuple[list[Tensor], list[dict[str, Tensor]], Tensor]
"""Pictures [C, H, W] of any sizes, what is known of their pixels, and their indices [B]."""


class DenseTask(Task):
    """Train and score a network with one map for each of several tasks.

    Validation looks at each picture once, at its own size, and cuts lines at fewer thresholds.

    Args:
        config: the run.
        model: pictures [B, C, H, W] -> task → logits; while it trains task → tuple of such.
        tasks: those that are scored.
        batches: sampler of the training batches; None where nothing is trained.
        loader: loader of those batches.
    """

    config: DenseConfig
    scores: MapScores

    def __init__(
        self,
        config: DenseConfig,
        model: nn.Module,
        *,
        tasks: Sequence[str],
        batches: TrainingBatches | None = None,
        loader: DataLoader[DenseBatch] | None = None,
    ) -> None:
        super().__init__(
            config,
            model,
            _loss(config, tasks),
            MapScores(tasks, min_max=config.scores.min_max),
            monitor="mean",
            batches=batches,
            loader=loader,
        )
        self.tasks = tuple(tasks)

    def training_loss(self, batch: DenseBatch) -> Tensor:
        """Return the loss of one batch of crops."""
        x, targets, _ = batch
        loss: Tensor = self.loss(self.model(self.memory_format(x)), targets)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the previous evaluation's pictures; look at the new ones quickly."""
        super().on_validation_epoch_start()
        self.scores.cut_at(self.config.scores.val_thresholds)
        self._inference = once(self.config.inference)

    def on_test_epoch_start(self) -> None:
        """Forget the previous evaluation's pictures; look at the new ones as it is asked for."""
        super().on_test_epoch_start()
        self.scores.cut_at(self.config.scores.thresholds)
        self._inference = self.config.inference
        batches: Any = self.trainer.test_dataloaders
        pictures = len(batches) * batches.batch_sampler.batch_size
        self.scores.pool = counting_pool(pictures, self.config.threads)

    def test_scores(self) -> dict[str, float]:
        """Return the scores of the test, when all lines are counted."""
        with reading_bar("matching lines to the true ones") as progress:
            self.scores.wait(progress)
        return self.scores.compute()

    def configure_callbacks(self) -> list[Callback]:
        """Return what ends the processes that count lines."""
        return [EndCounting(self.scores)]

    def update_scores(self, batch: WholeBatch) -> None:
        """Add a batch of whole pictures to the scores."""
        for x, truths, index in zip(*batch, strict=True):
            tasks = [task for task in self.tasks if task in truths]
            (maps,) = maps_of(self.evaluated_model, [x], tasks, self.config, self._inference)
            self.scores.update(index, maps, truths)

    def main_scores(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return each task's score by which networks are compared, and the mean of several."""
        names = [f"{task}/{MAIN[task]}" for task in self.tasks]
        names += [self.monitor] if len(names) > 1 else []
        return {name: v for name, v in scores.items() if name.partition("/")[2] in names}

    def remarks(self) -> tuple[str, ...]:
        """Say which maps were not all numbers, and which task had nothing to be scored on."""
        found = []
        for task, count in self.scores.not_finite.items():
            if count:
                found.append(f"{task}: {count} maps with values that are not numbers")
        for task in self.scores.without_score:
            found += [f"{task}: no pictures, or not one pixel is true, so there is no score"]
        return tuple(found)


def once(inference: InferenceConfig) -> InferenceConfig:
    """Return how to look at each picture once, at its own size."""
    return dataclasses.replace(
        inference, saliency_scales=(1.0,), edge_scales=(1.0,), skeleton_scales=(1.0,)
    )


def maps_of(
    model: nn.Module,
    pictures: Iterable[Tensor],
    tasks: Sequence[str],
    config: DenseConfig,
    inference: InferenceConfig | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Yield the maps of whole pictures, task → float32 [H, W] in [0, 1], as a run looks at them.

    Args:
        model: the network, in eval mode.
        pictures: preprocessed, each [C, H, W], on the network's device.
        tasks: which.
        config: of the run.
        inference: in place of the run's own.
    """

    def look(x: Tensor, tasks: Sequence[str], *, sides: bool) -> Any:
        if config.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return model(x, tasks, sides=sides)

    how = config.inference if inference is None else inference
    scales = {task: how.scales(task) for task in tasks}
    return picture_maps(look, pictures, scales, stretch=how.stretch, tile=how.tile)


class DenseSetup(Setup):
    """Data, network and pictures of a run that learns maps.

    Args:
        config: the run.
        model: a trained network, for evaluation; its tasks and preprocessing are kept.
        splits: those that will be used.

    Raises:
        ValueError: the data do not fit; one sentence says where and what would be right.
    """

    config: DenseConfig
    splits: dict[str, JointPictures]
    preprocess: WholePreprocess

    def __init__(
        self,
        config: DenseConfig,
        model: nn.Module | None = None,
        splits: Sequence[str] = ("train", "val", "test"),
    ) -> None:
        known = DENSE_TASKS if model is None else tuple(model.classes)  # type: ignore[arg-type]
        _loss(config, known)  # or a wrong argument would be found when all else is done
        self.tasks = _tasks(config, known)
        self.sets = {task: _read(config.data, task) for task in self.tasks}
        self.layout = ", ".join(dict.fromkeys(data.layout for data in self.sets.values()))
        self.origins = {split: self._origin(split) for split in splits}
        self.notes = tuple(dict.fromkeys(n for data in self.sets.values() for n in data.notes))
        if model is None:
            for data in self.sets.values():
                data.require_training()
        self.splits = self._joined(splits)
        if model is None:
            self.config = _resolved(config, self.sets)
            self.classes = self.tasks
            self.model = build_model(self.config, self.tasks)
            image_size = self.config.data.image_size
            assert image_size is not None
            check_input_size(self.model, image_size)
            self.preprocess = WholePreprocess(image_size=image_size, **normalization_of(self.model))
        else:
            self.config, self.model = config, model
            self.classes, self.preprocess = known, model.preprocess  # type: ignore[assignment]
        self.first_pass(splits)

    def _joined(self, splits: Sequence[str]) -> dict[str, JointPictures]:
        """Return the pictures of all tasks; splits that are the same pictures share them."""
        joined: dict[tuple[int, ...], JointPictures] = {}
        keys = {}
        for split in splits:
            pictures = {task: data.splits[split] for task, data in self.sets.items()}
            if not any(map(len, pictures.values())):
                roots = ", ".join(dict.fromkeys(str(data.root) for data in self.sets.values()))
                raise ValueError(f"{roots}: there are no {split} pictures ({self.origins[split]})")
            keys[split] = tuple(id(of_task) for of_task in pictures.values())
            if keys[split] not in joined:
                joined[keys[split]] = join(pictures)
        return {split: joined[key] for split, key in keys.items()}

    def sound(self, split: str, progress: Any) -> SoundPictures[JointPictures]:
        """Return a split without pictures that are damaged or do not fit their maps."""
        return leave_out_damaged_maps(self.splits[split], progress)

    def probe(self, split: str, progress: Any) -> None:
        """Look at a split; what is to be scored is decoded, or it could end a trained run."""
        pictures = self.splits[split]
        built_in = all(data.root is None for data in self.sets.values())
        look = pictures.probe if built_in or split == "train" else pictures.decode
        probe_all(len(pictures), look, progress)

    def label_bytes(self, split: str) -> bytes:
        """Return the names of the maps (their contents would take an epoch to read)."""
        pictures = self.splits[split]
        names = (
            f"{task} {os.path.basename(pictures.map_name(index, task))}"
            for index in range(len(pictures))
            for task in pictures.tasks_of(index)
        )
        return "\0".join(names).encode(errors="surrogateescape")

    def batch_size(self, *, training: bool) -> int:
        """Return the number of crops, or of whole pictures, which may be large, in a batch."""
        size = super().batch_size(training=training)
        return size if training else min(size, BATCH_SCORED)

    def batches(self, split: str, *, shuffle: bool = False) -> TrainingBatches:
        """Return this process's batches of a split, training ones with the sets' ratios."""
        if not shuffle:
            return super().batches(split)
        pictures = self.splits[split]
        return MixedBatchSampler(
            pictures.sizes,
            self.batch_size(training=True),
            ratios=[max(self.config.data.of(t).ratio for t in one) for one in pictures.set_tasks],
            seed=self.config.seed,
            rank=int(os.environ.get("RANK", "0")),
            world_size=int(os.environ.get("WORLD_SIZE", "1")),
        )

    def loader(
        self, split: str, batches: TrainingBatches, *, augmented: bool = False
    ) -> DataLoader[Any]:
        """Return batches of a split: crops in one tensor, or whole pictures as a list.

        Crops: (x [B, C, H, W], task → target [B, 1, H, W], index [B]); whole pictures:
        :data:`WholeBatch`.
        """
        pictures = self.splits[split]
        dataset: TransformedMaps | MapsToScore = MapsToScore(pictures, self.preprocess)
        if augmented:
            transform = MapTrainTransform(self.preprocess, self.config.augment, self.tasks)
            dataset = TransformedMaps(pictures, transform, self.config.seed)
        return make_loader(
            dataset,
            batches,
            workers=self.config.data.workers,
            pin_memory=self.config.device != "cpu" and torch.cuda.is_available(),
            stacked=augmented,
        )

    def task(self, *, training: bool = True) -> DenseTask:
        """Return the network with its loss and scores, ready to train or only to evaluate."""
        batches = self.batches("train", shuffle=True) if training else None
        return DenseTask(
            self.config,
            self.model,
            tasks=self.tasks,
            batches=batches,
            loader=self.loader("train", batches, augmented=True) if batches else None,
        )

    def describe(self) -> str:
        """Say what the data is: a line for each task, a line per split, notes."""
        sources = [
            f"data: {task:8s} {data.root or 'built-in'}, layout {data.layout}"
            for task, data in self.sets.items()
        ]
        splits = [
            f"{split:5s} {self.size(split):7,d} pictures: {origin}"
            for split, origin in self.origins.items()
        ]
        return "\n".join([*sources, *splits, *self.notes])

    def figures(self, task: Task, folder: Path) -> list[Figure]:
        """Draw pictures with truths and maps, the scores' curves, and what tasks select."""
        from foveal.tasks import dense_figures

        assert isinstance(task, DenseTask)
        return dense_figures.draw(task, self, folder)

    def _origin(self, split: str) -> str:
        """Return where a split's pictures come from, each task named unless all are the same."""
        origins = {task: data.origins[split] for task, data in self.sets.items()}
        if len(set(origins.values())) == 1:
            return next(iter(origins.values()))
        counts = {task: len(data.splits[split]) for task, data in self.sets.items()}
        return "; ".join(f"{task} {counts[task]:,d} ({origins[task]})" for task in origins)


def _tasks(config: DenseConfig, known: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks that are learned or scored, all of which have data.

    Raises:
        ValueError: none has, one of those asked for has not, or the network has not learned it.
    """
    data = config.data
    for task in DENSE_TASKS:
        for name, unset in (("layout", "auto"), ("domain", None)):
            given = getattr(data.of(task), name)
            if data.of(task).root is None and given != unset:
                raise ValueError(
                    f"data.{task}.{name} is {given!r}, but data.{task}.root is missing: give it, "
                    f"or data.{name} for the set of all tasks"
                )
    own = [task for task in DENSE_TASKS if data.of(task).root is not None]
    for task in own:
        if task not in known:
            raise ValueError(
                f"data.{task}.root is given, but the network has learned {' and '.join(known)} only"
            )
    if config.tasks:
        for task in config.tasks:
            if task not in own and own and data.root is None:
                raise ValueError(
                    f"data.{task}.root is missing: say where the pictures for {task} are, or leave "
                    f"it out of --tasks"
                )
        return tuple(task for task in config.tasks if task in known)
    if own and data.root is None:
        return tuple(own)
    tasks = {*own, *tasks_of(data.root, data.layout)}
    found = tuple(task for task in known if task in tasks)
    if not found:
        raise ValueError(
            f"{data.root}: has maps of {' and '.join(sorted(tasks))}, and the network has learned "
            f"{' and '.join(known)} only"
        )
    return found


def _read(data: DenseDataConfig, task: str) -> DenseData:
    own = data.of(task)
    options: Mapping[str, Any] = {
        "task": task,
        "val_fraction": data.val_fraction,
        "test_fraction": data.test_fraction,
        "split_seed": data.split_seed,
    }
    if own.root is not None:
        return read_dense(own.root, own.layout, domain=own.domain, **options)
    return read_dense(data.root, data.layout, domain=data.domain, **options)


def _resolved(config: DenseConfig, sets: Mapping[str, DenseData]) -> DenseConfig:
    """Return the config with what was found: tasks, layouts, the crop's size."""
    data = config.data
    changes: dict[str, Any] = {}
    for task, found in sets.items():
        if data.of(task).root is None:
            changes["layout"] = found.layout
        else:
            changes[task] = dataclasses.replace(data.of(task), layout=found.layout)
    suggested = [found.image_size or DEFAULT_IMAGE_SIZE for found in sets.values()]
    size = data.image_size or max(suggested)
    resolved = dataclasses.replace(data, image_size=size, **changes)
    return dataclasses.replace(config, data=resolved, tasks=tuple(sets))


def _loss(config: DenseConfig, tasks: Sequence[str]) -> MapLoss:
    known = [
        name
        for name, parameter in inspect.signature(MapLoss).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for key, value in config.loss_args.items():
        if key not in known:
            raise ValueError(unknown(f"argument of the loss {config.loss}", key, known))
        if config.loss == "cross_entropy" and key in ("threshold", "negative_factor"):
            raise ValueError(f"loss_args.{key} is of balanced_cross_entropy: leave it out")
        of_task = key.removesuffix("_weight")
        if of_task in DENSE_TASKS and of_task not in tasks:
            raise ValueError(f"loss_args.{key} is of a task that is not learned: leave it out")
        wanted = str if key == "reduction" else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted):
            kind = "a word" if key == "reduction" else "a number"
            raise ValueError(f"loss_args.{key} must be {kind}, not {value!r}")
    arguments: Any = config.loss_args
    return MapLoss(tasks, config.loss, **arguments)
