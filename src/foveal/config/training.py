"""What every task's run has."""

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Literal

from foveal.config.checks import above_zero, at_least, within
from foveal.config.values import Argument, check_parts


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the pictures are and how they reach the network.

    Attributes:
        root: folder, or .csv file, of the data; None trains on the built-in data.
        layout: how the folder is laid out; ``auto`` looks and says what it found.
        labels: which labels, where a layout has several sets of them, such as ``coarse`` of
            CIFAR-100; None: its first.
        domain: which domain of a layout that has several, such as ``night`` of scenes; None: its
            first.
        image_size: side of the square the network sees, pixels; None: the layout's own where it
            has one (28 for fashion, 32 for CIFAR, 128 for scenes), else 224, for segmentation 480.
        batch_size: pictures per optimiser step and process (before accumulation); None: 64, for
            segmentation 16.
        workers: processes that read pictures; 0 reads in the training process. The result of a
            run does not depend on it.
        on_error: what a picture that will not open does: ``stop`` ends the run with its path,
            ``skip`` opens every picture once before training and leaves out, counts and lists
            those that fail.
        val_fraction: share of the training pictures drawn for validation where the layout has no
            validation part, in (0, 1).
        test_fraction: share drawn for testing where a layout has only one folder of pictures,
            in (0, 1).
        split_seed: seed of those two draws, apart from the run's seed so that runs with other
            seeds see the same split.
        label_noise: share of each class's training labels that are made wrong, in [0, 1); 0 is
            off. Validation and test keep their true labels.
        label_noise_kind: what a wrong label is: ``symmetric`` draws any other class, ``pair``
            takes the next one.
        label_noise_seed: seed of that draw, apart from the run's seed so that runs with other
            seeds learn from the same labels.
    """

    root: str | None = None
    layout: str = "auto"
    labels: str | None = None
    domain: str | None = None
    image_size: int | None = None
    batch_size: int | None = None
    workers: int = 2
    on_error: Literal["stop", "skip"] = "stop"
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0
    label_noise: float = 0.0
    label_noise_kind: Literal["symmetric", "pair"] = "symmetric"
    label_noise_seed: int = 0

    def __post_init__(self) -> None:
        if self.image_size is not None:
            at_least("data.image_size", self.image_size, 1)
        if self.batch_size is not None:
            at_least("data.batch_size", self.batch_size, 1)
        at_least("data.workers", self.workers, 0)
        at_least("data.label_noise_seed", self.label_noise_seed, 0)
        for name in ("val_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"data.{name} must lie in (0, 1), not {value!r}")
        if not 0 <= self.label_noise < 1:
            raise ValueError(f"data.label_noise must lie in [0, 1), not {self.label_noise!r}")


@dataclass(frozen=True, kw_only=True)
class Insertion:
    """A layer put into the network, as :func:`foveal.insert` does it.

    Attributes:
        layer: name of a shape-preserving layer, such as ``coordinate``.
        where: ``blocks``, ``stages``, ``expand``, or a pattern over module names.
        identity: start at identity, so that trained weights compute what they did before.
        layer_args: further arguments of the layer, such as ``reduction: 16``.
    """

    layer: str
    where: str
    identity: bool = False
    layer_args: dict[str, Argument] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in (
            ("layer", str),
            ("where", str),
            ("identity", bool),
            ("layer_args", dict),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(
                    f"the {name} of an Insertion must be {kind.__name__}, not {value!r}"
                )
        check_parts(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What every task's run has: data, network, optimisation, machine.

    Attributes:
        data: the pictures.
        model: a registered name (``foveal models`` lists them); every timm name too.
        model_args: further arguments of the model, such as ``stem_stride: 1``.
        pretrained: start from published weights.
        checkpoint: start from the weights in this file; of a network for segmentation they may be
            those of its backbone alone.
        insert: layers put into the network after its weights are loaded, in this order, such as
            ``[{layer: coordinate, where: blocks, identity: true}]``.
        loss: name of the training loss: ``cross_entropy``, ``label_smoothing``,
            ``online_label_smoothing`` (or with ``_cifar`` or ``_finegrained`` behind it),
            ``ohem_cross_entropy``, ``symmetric_cross_entropy``, ``generalized_cross_entropy``.
        loss_args: arguments of the loss, such as ``label_smoothing: 0.1``.
        epochs: passes over the training pictures.
        max_steps: end after this many optimiser steps, before ``epochs`` are over; the run is
            then validated and tested once.
        optimizer: any timm optimiser name.
        lr: learning rate at the peak of the schedule.
        weight_decay: weight decay; biases and one-dimensional weights are exempt.
        momentum: momentum of the optimisers that have one.
        schedule: course of the learning rate after warm-up, per step: ``cosine`` and ``linear`` go
            to zero, ``poly`` is (1 - t)^0.9, ``multistep`` multiplies by ``decay_rate`` after each
            of the ``milestones``.
        milestones: numbers of epochs after which ``multistep`` lowers the rate, such as 30,60,90.
        decay_rate: what ``multistep`` multiplies the rate by, in (0, 1].
        warmup_epochs: epochs of linear warm-up; fractions allowed.
        ema: evaluate and keep an exponential moving average of the weights.
        ema_decay: decay per step of that average; it warms up as (1 + step) / (10 + step).
        clip_grad: largest norm of the gradient; 0 does not clip.
        accumulate: batches whose gradients are added before each optimiser step.
        early_stopping: end after this many epochs without a better validation score; 0 is off.
        amp: arithmetic of the forward pass: ``no`` is float32, ``bf16`` and ``fp16`` are autocast.
        compile: run the network through torch.compile.
        channels_last: memory format of pictures and weights; usually faster.
        tensorboard: also write TensorBoard logs (needs the extra ``tensorboard``).
        device: ``auto`` takes the GPU if there is one.
        threads: CPU threads of the training process; None leaves PyTorch's choice.
        seed: seed of everything random.
        out: the run folder; None makes a new one under ``runs/``.
    """

    DEFAULT_BATCH_SIZE = 64  # for data.batch_size None

    data: DataConfig = field(default_factory=DataConfig)
    model: str = "mobilenetv2_100_coordinate"
    model_args: dict[str, Argument] = field(default_factory=dict)
    pretrained: bool = False
    checkpoint: str | None = None
    insert: tuple[Insertion, ...] = ()
    loss: str = "cross_entropy"
    loss_args: dict[str, Argument] = field(default_factory=dict)
    epochs: int = 20
    max_steps: int | None = None
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    schedule: Literal["cosine", "poly", "linear", "constant", "multistep"] = "cosine"
    milestones: tuple[int, ...] = ()
    decay_rate: float = 0.1
    warmup_epochs: float = 1.0
    ema: bool = False
    ema_decay: float = 0.999
    clip_grad: float = 0.0
    accumulate: int = 1
    early_stopping: int = 0
    amp: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    channels_last: bool = True
    tensorboard: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    seed: int = 0
    out: str | None = None

    def __post_init__(self) -> None:
        check_parts(self)
        if self.data.batch_size is None:
            data = dataclasses.replace(self.data, batch_size=self.DEFAULT_BATCH_SIZE)
            object.__setattr__(self, "data", data)
        for name in ("epochs", "accumulate", "threads", "max_steps"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        for name in ("warmup_epochs", "clip_grad", "early_stopping", "weight_decay", "seed"):
            at_least(name, getattr(self, name), 0)
        if not isinstance(self.insert, (list, tuple)):
            raise TypeError(f"insert must be a tuple of foveal.Insertion, not {self.insert!r}")
        object.__setattr__(self, "insert", tuple(self.insert))  # so that equal configs are equal
        for insertion in self.insert:
            if not isinstance(insertion, Insertion):
                kind = type(insertion).__name__
                raise TypeError(f"insert must hold foveal.Insertion objects, not a {kind}")
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("the schedule multistep needs milestones, such as 30,60,90")
        if self.milestones and self.schedule != "multistep":
            raise ValueError(
                f"milestones are for the schedule multistep, not {self.schedule}: empty them, "
                "--milestones '[]'"
            )
        if any(b <= a for a, b in itertools.pairwise((0, *self.milestones))):
            found = ", ".join(map(str, self.milestones))
            raise ValueError(f"milestones must be rising numbers of epochs above 0, not {found}")
        if self.milestones and self.milestones[-1] >= self.epochs:
            raise ValueError(
                f"the milestone {self.milestones[-1]} is never reached in {self.epochs} epochs: "
                "give smaller milestones"
            )
        if not 0 < self.decay_rate <= 1:
            raise ValueError(f"decay_rate must lie in (0, 1], not {self.decay_rate!r}")
        above_zero("lr", self.lr)
        within("ema_decay", self.ema_decay, 0, 1)
        within("momentum", self.momentum, 0, 1)


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(TrainConfig):
    """A run whose network may stand on a backbone that can be chosen.

    Attributes:
        backbone: its backbone, any classification network of foveal or timm; None: the network's
            own choice, or none where the model is such a network itself.
        backbone_args: further arguments of the backbone, such as ``drop_path_rate: 0.1``.
        head_lr_scale: what the learning rate is multiplied by outside the backbone.
    """

    backbone: str | None = None
    backbone_args: dict[str, Argument] = field(default_factory=dict)
    head_lr_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero("head_lr_scale", self.head_lr_scale)
