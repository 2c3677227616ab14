"""Classification: name what a picture shows."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchvision.transforms import v2

from foveal.config import ClassifyConfig
from foveal.data.classification import read_classification
from foveal.data.label_noise import noisy_targets
from foveal.data.loading import (
    Batch,
    SoundPictures,
    TransformedPictures,
    leave_out_damaged,
    make_loader,
)
from foveal.data.parts import StoredPictures, with_targets
from foveal.data.pictures import printable
from foveal.data.sampling import TrainingBatches
from foveal.data.transforms import Preprocess, TrainTransform
from foveal.layers import has_attention_maps, reading_attention_maps
from foveal.losses import (
    attention_similarity,
    create_loss,
    released_attention_similarity,
)
from foveal.metrics import ClassificationScores, MultiLabelScores, fgsm
from foveal.models.input_size import check_input_size
from foveal.names import unknown
from foveal.tasks.class_weights import balanced_weights
from foveal.tasks.hiding import HiddenCells, HiddenRegions
from foveal.tasks.report import Figure
from foveal.tasks.run import build_model
from foveal.tasks.setup import Setup, normalization_of
from foveal.tasks.task import Task

DEFAULT_IMAGE_SIZE = 224
SMALL_IMAGE_SIZE = 64


class ClassifyTask(Task):
    """Train and score a classifier.

    Args:
        config: the run.
        model: [B, C, H, W] -> logits [B, K].
        num_classes: K.
        targets: labels of the training pictures, int64 [N] or float32 [N, K], for class weights.
        preprocess: what made the network's input, for the range in which an attack moves.
        batches: sampler of the training batches; None where nothing is trained.
        loader: loader of those batches.

    Raises:
        ValueError: ``attention_similarity`` for a network that has too little attention, or a loss
            that cannot be.
    """

    config: ClassifyConfig
    scores: Metric

    def __init__(
        self,
        config: ClassifyConfig,
        model: nn.Module,
        *,
        num_classes: int,
        targets: np.ndarray,
        preprocess: Preprocess,
        batches: TrainingBatches | None = None,
        loader: DataLoader[Batch] | None = None,
    ) -> None:
        if config.attention_similarity:
            _check_attention(config, model)
        hides = config.hide_weight > 0 and batches is not None
        hiding = _hiding(config, model, preprocess) if hides else None
        balanced = config.class_weights == "balanced"
        if config.multi_label:
            weight = _positive_weights(targets) if balanced else None
            loss: nn.Module = nn.BCEWithLogitsLoss(pos_weight=weight)
        else:
            counts = np.bincount(targets, minlength=num_classes) if balanced else None
            weight = None if counts is None else balanced_weights(counts)
            loss = create_loss(config.loss, num_classes, weight, **config.loss_args)
        super().__init__(
            config,
            model,
            loss,
            MultiLabelScores(num_classes) if config.multi_label else ClassificationScores(),
            monitor="map" if config.multi_label else "accuracy",
            batches=batches,
            loader=loader,
        )
        self.mixing = _mixing(config, num_classes)
        self.hiding = hiding
        self.num_classes = num_classes
        self.preprocess = preprocess
        self.attacked_scores = ClassificationScores() if config.fgsm else None
        if self.mixing is not None and "mixed" not in config.loss_args:
            for part in self.collecting_losses():
                part.mixed = "weighted"  # every picture is mixed, so none would be collected

    def training_loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch, with mixup or cutmix if asked for."""
        x, target, _ = batch
        x = self.memory_format(x)
        if self.mixing is not None:
            if target.ndim == 1:
                target = nn.functional.one_hot(target, self.num_classes).to(x.dtype)
            x, target = self.mixing(x, target)
        maps: dict[str, Tensor] = {}
        if self.config.attention_similarity:
            with reading_attention_maps(self.model, maps.__setitem__):
                loss: Tensor = self.loss(self.model(x), target)
            loss = loss + self.config.attention_similarity * self._similarity([*maps.values()])
        else:
            loss = self.loss(self.model(x), target)
        if self.hiding is not None:
            x, target = self.hiding(x, target)
            loss = loss + self.config.hide_weight * self.loss(self.model(x), target)
        return loss

    def on_train_epoch_start(self) -> None:
        """Let what is hidden be mined with the weights of now, for the whole epoch."""
        super().on_train_epoch_start()
        if isinstance(self.hiding, HiddenRegions):
            self.hiding.refresh(self.model)

    def _similarity(self, maps: list[Tensor]) -> Tensor:
        """Return how alike the attention maps of successive blocks are."""
        pairs = self.config.attention_similarity_pairs
        if pairs is None:
            return attention_similarity(maps)
        return released_attention_similarity(maps, pairs)

    def update_scores(self, batch: Batch) -> None:
        """Add one batch to the scores."""
        x, target, index = batch
        self.scores.update(index, self(self.memory_format(x)).float(), target)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch, also as the fast gradient sign method changes it."""
        super().test_step(batch, batch_idx)
        if self.attacked_scores is not None:
            x, target, index = batch
            mean, std = self.preprocess.mean, self.preprocess.std
            x = self.memory_format(x)
            x = fgsm(self.evaluated_model, x, target, self.config.fgsm, mean=mean, std=std)
            self.attacked_scores.update(index, self(x).float(), target)

    def on_test_epoch_start(self) -> None:
        """Forget the previous evaluation's pictures."""
        super().on_test_epoch_start()
        if self.attacked_scores is not None:
            self.attacked_scores.reset()

    def test_scores(self) -> dict[str, float]:
        """Return the scores of the test, the accuracy under attack last."""
        scores = super().test_scores()
        if self.attacked_scores is not None:
            scores["accuracy_fgsm"] = self.attacked_scores.compute()["accuracy"]
        return scores


def _check_attention(config: ClassifyConfig, model: nn.Module) -> None:
    """Raise ValueError unless a network has attention whose maps can be compared."""
    needed = (config.attention_similarity_pairs or 1) + 1
    found = sum(map(has_attention_maps, model.modules()))
    if found < needed:
        raise ValueError(
            f"attention_similarity compares the attention maps of {needed} blocks, and those of "
            f"{found} can be read in {type(model).__name__}: of timm's attentions, and of modules "
            "with a method attention_maps(x)"
        )


def _mixing(config: ClassifyConfig, num_classes: int) -> v2.Transform | None:
    """Return mixup, cutmix, one of both drawn for each batch, or nothing."""
    choices = []
    if config.augment.mixup:
        choices.append(v2.MixUp(alpha=config.augment.mixup, num_classes=num_classes))
    if config.augment.cutmix:
        choices.append(v2.CutMix(alpha=config.augment.cutmix, num_classes=num_classes))
    return v2.RandomChoice(choices) if len(choices) > 1 else (choices[0] if choices else None)


def _hiding(config: ClassifyConfig, model: nn.Module, preprocess: Preprocess) -> nn.Module:
    """Return what hides a part of each picture."""
    if config.hide_mined:
        return HiddenRegions(model, preprocess.image_size)
    return HiddenCells(config.hide_cells, config.hide_probability)


def _positive_weights(targets: np.ndarray) -> Tensor:
    """Return negatives per positive of each class, [K]."""
    positives = np.maximum(targets.sum(0), 1)
    return torch.as_tensor((len(targets) - positives) / positives).float().clamp_min(1e-3)


class ClassifySetup(Setup):
    """Data, network and pictures of a classification run.

    Label noise belongs to training: with ``model`` every label is the true one.

    Args:
        config: the run.
        model: a trained network, for evaluation; its classes and preprocessing are kept, and the
            data's classes are matched to them by name.
        splits: those that will be used.

    Raises:
        ValueError: the data do not fit; one sentence says where and what would be right.
    """

    config: ClassifyConfig
    splits: dict[str, StoredPictures]

    def __init__(
        self,
        config: ClassifyConfig,
        model: nn.Module | None = None,
        splits: Sequence[str] = ("train", "val", "test"),
    ) -> None:
        data = read_classification(
            config.data.root,
            config.data.layout,
            labels=config.data.labels,
            domain=config.data.domain,
            multi_label=config.multi_label,
            val_fraction=config.data.val_fraction,
            test_fraction=config.data.test_fraction,
            split_seed=config.data.split_seed,
        )
        self.layout, self.origins = data.layout, dict(data.origins)
        self.splits = dict(data.splits)
        self.notes = data.notes
        if model is None:
            data.require_training()
            image_size = config.data.image_size or data.image_size or DEFAULT_IMAGE_SIZE
            resolved = dataclasses.replace(config.data, image_size=image_size, layout=data.layout)
            self.config = dataclasses.replace(config, data=resolved)
            self.classes = data.classes
            self.model = build_model(self.config, data.classes)
            check_input_size(self.model, image_size)
            self.preprocess = preprocess_of(self.model, image_size)
        else:
            self.config, self.model = config, model
            self.classes, self.preprocess = tuple(model.classes), model.preprocess  # type: ignore
            self.splits = {
                name: _with_classes(split, data.classes, self.classes, config.multi_label)
                for name, split in self.splits.items()
            }
        self.first_pass(splits)
        self.true_targets = self.splits["train"].targets
        if model is None and config.data.label_noise:
            self._add_label_noise()

    def sound(self, split: str, progress: Any) -> SoundPictures[StoredPictures]:
        """Return a split without its damaged pictures.

        Raises:
            ValueError: no picture of a class is left.
        """
        sound = leave_out_damaged(self.splits[split], progress)
        self._check_classes_left(split, self.splits[split], sound.pictures)
        return sound

    def _check_classes_left(self, name: str, old: StoredPictures, new: StoredPictures) -> None:
        if self.config.multi_label:
            return
        for k in sorted(set(old.targets.tolist()) - set(new.targets.tolist())):
            raise ValueError(
                f"every picture of class {self.classes[k]!r} in {name} is damaged: "
                "put pictures there that open, or leave the class out everywhere"
            )

    def _add_label_noise(self) -> None:
        """Make training labels wrong, now that damaged pictures have been left out."""
        data = self.config.data
        noisy = noisy_targets(
            self.true_targets,
            len(self.classes),
            data.label_noise,
            data.label_noise_kind,
            data.label_noise_seed,
        )
        self.splits["train"] = with_targets(self.splits["train"], noisy)
        changed = int((noisy != self.true_targets).sum())
        self.notes += (
            f"label noise: {data.label_noise_kind} {100 * data.label_noise:g} %, seed "
            f"{data.label_noise_seed}: {changed:,d} of {len(noisy):,d} training labels changed",
        )

    def records(self) -> dict[str, str]:
        """Return the table of wrong training labels, where there are any on purpose."""
        if not self.config.data.label_noise:
            return {}
        train, text = self.splits["train"], io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["picture", "true", "given"])
        for index in np.flatnonzero(train.targets != self.true_targets).tolist():
            pair = (self.true_targets[index], train.targets[index])
            names = (train.name(index), *(self.classes[k] for k in pair))
            writer.writerow([printable(name) for name in names])
        return {"label_noise.csv": text.getvalue()}

    def label_bytes(self, split: str) -> bytes:
        """Return the labels of a split."""
        return np.ascontiguousarray(self.splits[split].targets).tobytes()

    def loader(
        self, split: str, batches: TrainingBatches, *, augmented: bool = False
    ) -> DataLoader[Batch]:
        """Return batches (x [B, C, H, W], target [B] or [B, K], index [B]) of a split."""
        transform = (
            TrainTransform(self.preprocess, self.config.augment) if augmented else self.preprocess
        )
        dataset = TransformedPictures(self.splits[split], transform, self.config.seed)
        pin_memory = self.config.device != "cpu" and torch.cuda.is_available()
        return make_loader(
            dataset, batches, workers=self.config.data.workers, pin_memory=pin_memory
        )

    def task(self, *, training: bool = True) -> ClassifyTask:
        """Return the network with its loss and scores, ready to train or only to evaluate."""
        batches = self.batches("train", shuffle=True) if training else None
        return ClassifyTask(
            self.config,
            self.model,
            num_classes=len(self.classes),
            targets=self.splits["train"].targets,
            preprocess=self.preprocess,
            batches=batches,
            loader=self.loader("train", batches, augmented=True) if batches else None,
        )

    def figures(self, task: Task, folder: Path) -> list[Figure]:
        """Draw predictions, mistakes, confusion, reliability, soft labels and attention gates."""
        from foveal.tasks import classify_figures

        assert isinstance(task, ClassifyTask)
        return classify_figures.draw(task, self, folder)


def preprocess_of(model: nn.Module, image_size: int) -> Preprocess:
    """Return what a network wants to see, from its ``default_cfg``.

    Small pictures (up to 64 pixels) are used whole; larger ones lose their border as timm does.
    """
    cfg: dict[str, Any] = getattr(model, "default_cfg", {})
    return Preprocess(
        image_size=image_size,
        crop_pct=cfg.get("crop_pct", 0.875) if image_size > SMALL_IMAGE_SIZE else 1.0,
        **normalization_of(model),
    )


def _with_classes(
    pictures: StoredPictures, names: Sequence[str], wanted: Sequence[str], multi_label: bool
) -> StoredPictures:
    """Renumber a split's labels from one list of class names to another."""
    if tuple(names) == tuple(wanted):
        return pictures
    for name in names:
        if name not in wanted:
            raise ValueError("the data do not fit this run: " + unknown("class", name, wanted))
    column = np.array([wanted.index(name) for name in names])
    if multi_label:
        targets = np.zeros((len(pictures), len(wanted)), dtype=np.float32)
        targets[:, column] = pictures.targets
    else:
        targets = column[pictures.targets]
    return with_targets(pictures, targets)
