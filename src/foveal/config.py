"""What a run is: one frozen dataclass for each task, made in Python, from YAML or from flags.

Standard library only, so that ``foveal --help`` and a wrong flag answer at once.
"""

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal, TypeVar

from foveal.names import unknown

Scalar = int | float | bool | str | None
Argument = int | float | bool | str | None | list[Scalar]

DENSE_TASKS = ("saliency", "edge", "skeleton")
"""What a dense network may tell of every pixel, in the order of every list of them."""


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
            _at_least("data.image_size", self.image_size, 1)
        if self.batch_size is not None:
            _at_least("data.batch_size", self.batch_size, 1)
        _at_least("data.workers", self.workers, 0)
        _at_least("data.label_noise_seed", self.label_noise_seed, 0)
        for name in ("val_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"data.{name} must lie in (0, 1), not {value!r}")
        if not 0 <= self.label_noise < 1:
            raise ValueError(f"data.label_noise must lie in [0, 1), not {self.label_noise!r}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to training pictures (torchvision.transforms.v2).

    Attributes:
        min_scale: smallest share of the picture's area that a random crop keeps; 1 keeps all.
        padding: border in pixels for a random shift of small pictures; used with min_scale 1.
        hflip: probability of a left-right mirror image.
        vflip: probability of an upside-down mirror image.
        color_jitter: strength of random brightness, contrast and saturation; 0 is off.
        randaugment: magnitude of RandAugment, 1 to 30, two operations a picture; 0 is off.
        erasing: probability that a random rectangle is erased.
        mixup: alpha of mixup's Beta distribution; 0 is off.
        cutmix: alpha of cutmix's Beta distribution; 0 is off. With both, each batch draws one.
    """

    min_scale: float = 0.35
    padding: int = 0
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.0
    randaugment: int = 0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("hflip", "vflip", "erasing"):
            _within(f"augment.{name}", getattr(self, name), 0, 1)
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"augment.min_scale must lie in (0, 1], not {self.min_scale!r}")
        _within("augment.randaugment", self.randaugment, 0, 30)
        for name in ("padding", "color_jitter", "mixup", "cutmix"):
            _at_least(f"augment.{name}", getattr(self, name), 0)
        if self.padding and self.min_scale < 1:
            raise ValueError(
                f"augment.padding needs augment.min_scale 1, not {self.min_scale!r}: a random crop "
                "shifts the picture already"
            )


@dataclass(frozen=True, kw_only=True)
class SegmentAugmentConfig:
    """Random changes to training pictures and their masks, in this order, then a random crop.

    The crop is ``data.image_size`` pixels wide. Where a changed picture does not reach, the
    picture is filled with the mean and its mask is ignored.

    Attributes:
        min_scale: smallest factor by which a picture is scaled.
        max_scale: largest factor; 1 for both keeps the size.
        rotate: largest angle of rotation, degrees, of every second picture; 0 is off.
        blur: probability of a Gaussian blur over 5 x 5 pixels.
        hflip: probability of a left-right mirror image.
    """

    min_scale: float = 0.5
    max_scale: float = 2.0
    rotate: float = 10.0
    blur: float = 0.5
    hflip: float = 0.5

    def __post_init__(self) -> None:
        _check_scales(self.min_scale, self.max_scale)
        _within("augment.rotate", self.rotate, 0, 180)
        for name in ("blur", "hflip"):
            _within(f"augment.{name}", getattr(self, name), 0, 1)


@dataclass(frozen=True, kw_only=True)
class DenseAugmentConfig:
    """Random changes to training pictures and their maps, in this order, then a random crop.

    The crop is ``data.image_size`` pixels wide. Where a changed picture does not reach, the
    picture is filled with the mean and its maps have no label.

    Attributes:
        min_scale: smallest factor by which a picture is scaled.
        max_scale: largest factor; 1 for both keeps the size.
        rotate: largest angle of rotation, degrees, of every second picture; 0 is off.
        hflip: probability of a left-right mirror image.
    """

    min_scale: float = 0.8
    max_scale: float = 1.2
    rotate: float = 10.0
    hflip: float = 0.5

    def __post_init__(self) -> None:
        _check_scales(self.min_scale, self.max_scale)
        _within("augment.rotate", self.rotate, 0, 180)
        _within("augment.hflip", self.hflip, 0, 1)


@dataclass(frozen=True, kw_only=True)
class SlidingConfig:
    """How a network for pixels looks at whole pictures, to be scored and to predict.

    The protocol of SPNet's official code: windows two thirds of their side apart, each with its
    mirror image, their probabilities averaged.

    Attributes:
        window: side of the square that the network sees, pixels; None: data.image_size, as in
            training; 0: the whole picture at once.
        stride: from one window to the next, pixels; None: two thirds of the window, rounded up.
        scales: at which a picture is looked at, such as 0.5,0.75,1,1.25,1.5,1.75.
        flip: also look at the mirror image of each window.
        long_side: to which a picture's long side is brought at scale 1, pixels; None: its own.
        window_batch: windows in one forward pass; the result does not depend on it.
    """

    window: int | None = None
    stride: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    long_side: int | None = None
    window_batch: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.scales, str) or not isinstance(self.scales, Iterable):
            raise TypeError(
                f"sliding.scales must be several numbers, such as (0.5, 1.0), not {self.scales!r}"
            )
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        if self.window is not None:
            _at_least("sliding.window", self.window, 0)
        for name in ("stride", "long_side", "window_batch"):
            if getattr(self, name) is not None:
                _at_least(f"sliding.{name}", getattr(self, name), 1)
        if not self.scales or not all(0 < scale < float("inf") for scale in self.scales):
            raise ValueError(f"sliding.scales must be numbers above 0, not {list(self.scales)}")


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
        _check_parts(self)


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
        _check_parts(self)
        if self.data.batch_size is None:
            data = dataclasses.replace(self.data, batch_size=self.DEFAULT_BATCH_SIZE)
            object.__setattr__(self, "data", data)
        for name in ("epochs", "accumulate", "threads", "max_steps"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        for name in ("warmup_epochs", "clip_grad", "early_stopping", "weight_decay", "seed"):
            _at_least(name, getattr(self, name), 0)
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
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, not {self.lr!r}")
        _within("ema_decay", self.ema_decay, 0, 1)
        _within("momentum", self.momentum, 0, 1)


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(TrainConfig):
    """Train a network to name what a picture shows.

    Attributes:
        augment: random changes to training pictures.
        multi_label: a picture may show several classes or none; labels come from a CSV.
        class_weights: ``balanced`` weights the loss by the inverse of each class's frequency.
        fgsm: strength of the fast gradient sign attack in the final test, in picture values
            [0, 1]; 0 is off. It adds the score ``test/accuracy_fgsm``.
    """

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    multi_label: bool = False
    class_weights: Literal["none", "balanced"] = "none"
    fgsm: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("fgsm", self.fgsm, 0, 1)
        if self.multi_label and (self.loss != "cross_entropy" or self.loss_args):
            raise ValueError(
                "multi_label trains the binary cross entropy of each class: leave loss and "
                "loss_args out"
            )
        if self.multi_label and self.data.label_noise:
            raise ValueError(
                "data.label_noise swaps the one class of a picture, and multi_label has any "
                "number of them: leave one of the two out"
            )
        if self.multi_label and self.fgsm:
            raise ValueError(
                "fgsm attacks the one class of a picture, and multi_label has any number of them: "
                "leave one of the two out"
            )


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(TrainConfig):
    """Train a network to name what each pixel of a picture shows.

    The optimisation is that of segmentation papers: SGD with momentum, a polynomial decay of the
    rate per step, and a rate ten times as high for what is not the backbone's.

    Attributes:
        model: a network for segmentation: ``deeplabv3``, ``lraspp``, ``spnet``.
        backbone: its backbone, any classification network of foveal or timm; None: the network's
            own choice.
        backbone_args: further arguments of the backbone, such as ``drop_path_rate: 0.1``.
        augment: random changes to training pictures and their masks.
        sliding: how whole pictures are looked at in validation, test and prediction.
        aux_weight: weight of the loss of the auxiliary head, where the network has one.
        head_lr_scale: what the learning rate is multiplied by outside the backbone.
        class_weights: ``balanced`` weights the loss by the inverse of each class's share of the
            training pixels; every mask is opened once for that.
    """

    DEFAULT_BATCH_SIZE = 16

    model: str = "deeplabv3"
    backbone: str | None = None
    backbone_args: dict[str, Argument] = field(default_factory=dict)
    augment: SegmentAugmentConfig = field(default_factory=SegmentAugmentConfig)
    sliding: SlidingConfig = field(default_factory=SlidingConfig)
    aux_weight: float = 0.4
    head_lr_scale: float = 10.0
    class_weights: Literal["none", "balanced"] = "none"
    optimizer: str = "momentum"
    lr: float = 0.01
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "poly", "linear", "constant", "multistep"] = "poly"
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("aux_weight", self.aux_weight, 0)
        if not self.head_lr_scale > 0:
            raise ValueError(f"head_lr_scale must be above 0, not {self.head_lr_scale!r}")
        if self.data.label_noise:
            raise ValueError(
                "data.label_noise swaps the one class of a picture, and in segmentation each "
                "pixel has its own: leave it out"
            )


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], not {value!r}")


def _check_scales(low: float, high: float) -> None:
    if not 0 < low <= high:
        raise ValueError(
            f"augment.min_scale must be above 0 and at most augment.max_scale {high!r}, not {low!r}"
        )


def _check_parts(config: Any) -> None:
    """Hold parts of a config to their classes, and arguments of other functions to plain values.

    Tuples among those become lists, as they will be when the run's file is read.
    """
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(hint) and not isinstance(value, typing.cast(type, hint)):
            wanted = typing.cast(type, hint).__name__
            raise TypeError(f"{name} must be a foveal.config.{wanted}, not {value!r}")
        if typing.get_origin(hint) is dict:
            object.__setattr__(config, name, _convert(hint, value, name))


TASK_CONFIGS: dict[str, type[TrainConfig]] = {
    "classify": ClassifyConfig,
    "segment": SegmentConfig,
}


def task_of(config: TrainConfig) -> str:
    """Return the task's name for a config object, such as ``"classify"``."""
    for task, config_class in TASK_CONFIGS.items():
        if type(config) is config_class:
            return task
    expected = " or ".join(c.__name__ for c in TASK_CONFIGS.values())
    raise TypeError(f"the config must be a {expected}, not {type(config).__name__}")


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the config as plain dicts, lists and scalars, ``task`` first."""
    values = {"task": task_of(config), **dataclasses.asdict(config)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Build the config that :func:`to_dict` or a YAML file describes.

    Args:
        values: field names to values, with ``task``; absent fields keep their defaults.

    Raises:
        ValueError: no or an unknown task, an unknown key, or a value of the wrong type; the
            message names the key and what would be right.
    """
    fields = dict(values)
    task = fields.pop("task", None)
    if task is None:
        raise ValueError(f"the config has no 'task': it must be one of {', '.join(TASK_CONFIGS)}")
    if task not in TASK_CONFIGS:
        raise ValueError(unknown("task", str(task), TASK_CONFIGS))
    return typing.cast(TrainConfig, _build(TASK_CONFIGS[task], fields, ""))


T = TypeVar("T")


def updated(part: T, changes: Mapping[str, Any], prefix: str) -> T:
    """Return a part of a config with some other values, held to their types as a file's are.

    Args:
        part: such as ``SegmentConfig().sliding``.
        changes: field names to values.
        prefix: what stands before the names in messages, such as ``sliding.``.

    Raises:
        ValueError: an unknown field, or a wrong value.
    """
    own = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}  # type: ignore[arg-type]
    return typing.cast(T, _build(type(part), {**own, **changes}, prefix))


def _build(cls: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"config key {prefix.rstrip('.')!r} must hold keys, not {values!r}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise ValueError(unknown("config key", str(key), known, prefix))
    for f in dataclasses.fields(cls):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in values:
            raise ValueError(f"config key {prefix.rstrip('.')!r} needs {f.name!r}")
    return cls(**{k: _convert(hints[k], v, prefix + k) for k, v in values.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Return ``value`` as the type that ``hint`` asks for, or say what would be right."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, key + ".")
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"config key {key!r} must hold keys, not {value!r}")
        return {str(k): _convert(args[1], v, f"{key}.{k}") for k, v in value.items()}
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"config key {key!r} must be a list, not {value!r}")
        return origin(_convert(args[0], v, f"{key}[{i}]") for i, v in enumerate(value))
    if origin is Literal:
        if value is False and "no" in args:  # YAML 1.1 reads a bare `no` as False
            return "no"
        if value not in args:
            raise ValueError(f"config key {key!r} must be {' or '.join(args)}, not {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in args:
            return None
        for member in sorted((a for a in args if a is not types.NoneType), key=_strictness):
            try:
                return _convert(member, value, key)
            except ValueError:
                continue
        raise ValueError(f"config key {key!r} must be {hint}, not {value!r}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"config key {key!r} must be {hint.__name__}, not {value!r}")
    return value


def _strictness(hint: Any) -> int:
    """Order of a union's members: 1 is an int, True a bool, and both are no float."""
    order: list[Any] = [bool, int, float, str]
    return order.index(hint) if hint in order else len(order)
