"""Runs that find salient objects, edges and skeletons."""

from dataclasses import dataclass, field
from typing import Literal

from foveal.config.checks import above_zero, at_least, check_scales, several_scales, within
from foveal.config.training import BackboneConfig, DataConfig
from foveal.config.values import check_parts
from foveal.names import unknown

DENSE_TASKS = ("saliency", "edge", "skeleton")
"""What a dense network may tell of every pixel, in the order of every list of them."""


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
        check_scales(self.min_scale, self.max_scale)
        within("augment.rotate", self.rotate, 0, 180)
        within("augment.hflip", self.hflip, 0, 1)


@dataclass(frozen=True, kw_only=True)
class MapSetConfig:
    """Pictures with the maps of one task.

    Attributes:
        root: folder, or list of pairs, of the pictures for this task; None: those of data.root.
        layout: how that folder is laid out; ``auto`` looks and says what it found.
        domain: which domain, where the layout has several; None: its first.
        ratio: how often its pictures are drawn for training, relative to those of other sets; of
            pictures that serve several tasks the largest counts.
    """

    root: str | None = None
    layout: str = "auto"
    domain: str | None = None
    ratio: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DenseDataConfig(DataConfig):
    """Where the pictures with maps are: one set for all tasks, or one for each.

    Attributes:
        root: folder of pictures that serve all tasks without a root of their own; None: there are
            none, and without any root the built-in scenes are taken.
        image_size: side of the square crops that the network is trained on, pixels; None: the
            layout's own where it has one (128 for scenes), else 320.
        batch_size: pictures per optimiser step and process (before accumulation); None: 8.
        saliency: pictures with salient objects.
        edge: pictures with edges.
        skeleton: pictures with skeletons.
    """

    saliency: MapSetConfig = field(default_factory=MapSetConfig)
    edge: MapSetConfig = field(default_factory=MapSetConfig)
    skeleton: MapSetConfig = field(default_factory=MapSetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_parts(self)
        for task in DENSE_TASKS:
            above_zero(f"data.{task}.ratio", self.of(task).ratio)
        if self.labels is not None:
            raise ValueError(
                f"data.labels is for other tasks: --tasks says what is learned, such as "
                f"{self.labels if self.labels in DENSE_TASKS else 'saliency'}"
            )
        if self.label_noise:
            raise ValueError("data.label_noise swaps classes, and maps have none: leave it out")

    def of(self, task: str) -> MapSetConfig:
        """Return the pictures of a task."""
        found: MapSetConfig = getattr(self, task)
        return found


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a dense network looks at whole pictures, to be scored and to predict.

    The protocol of DFI's official code looks at edges at the scales 0.5, 1, 1.5 and 2 and at
    skeletons at 0.5, 1 and 1.5.

    Attributes:
        saliency_scales: at which a picture is looked at for salient objects; their maps are
            averaged.
        edge_scales: for edges, such as 0.5,1,1.5,2.
        skeleton_scales: for skeletons, such as 0.5,1,1.5.
        stretch: let each scale's map of edges and of skeletons span [0, 1] before they are
            averaged, as in the official code; without it, values are probabilities.
        tile: side of the squares into which pictures that are larger are cut, overlapping by a
            quarter, pixels; 0: never.
        bits: of each pixel in maps that are written, 8 or 16.
    """

    saliency_scales: tuple[float, ...] = (1.0,)
    edge_scales: tuple[float, ...] = (1.0,)
    skeleton_scales: tuple[float, ...] = (1.0,)
    stretch: bool = True
    tile: int = 0
    bits: int = 8

    def __post_init__(self) -> None:
        for task in DENSE_TASKS:
            name = f"{task}_scales"
            found = several_scales(f"inference.{name}", getattr(self, name))
            object.__setattr__(self, name, found)
        at_least("inference.tile", self.tile, 0)
        if self.bits not in (8, 16):
            raise ValueError(f"inference.bits must be 8 or 16, not {self.bits!r}")

    def scales(self, task: str) -> tuple[float, ...]:
        """Return the scales of a task."""
        found: tuple[float, ...] = getattr(self, f"{task}_scales")
        return found


@dataclass(frozen=True, kw_only=True)
class MapScoresConfig:
    """How maps are scored.

    Attributes:
        min_max: let each saliency map span [0, 1] before it is scored, as PySODMetrics does.
        thresholds: at which edges and skeletons are cut in the test, 99 as in the benchmark.
        val_thresholds: in validation.
    """

    min_max: bool = True
    thresholds: int = 99
    val_thresholds: int = 9

    def __post_init__(self) -> None:
        at_least("scores.thresholds", self.thresholds, 1)
        at_least("scores.val_thresholds", self.val_thresholds, 1)


@dataclass(frozen=True, kw_only=True)
class DenseConfig(BackboneConfig):
    """Train one network to find salient objects, edges and skeletons.

    Attributes:
        model: a network for dense tasks: ``dfi``.
        tasks: what is learned, such as saliency,edge; empty: all that the data have.
        data: the pictures.
        augment: random changes to training pictures and their maps.
        inference: how whole pictures are looked at in test and prediction.
        scores: how their maps are scored.
        loss: ``balanced_cross_entropy``, in which the few pixels of lines weigh as much as all
            others and saliency has the plain cross entropy, or ``cross_entropy``, plain for all.
        loss_args: its arguments: ``reduction`` (``mean``, or the authors' ``sum_per_image``),
            ``saliency_weight``, ``edge_weight``, ``skeleton_weight``, ``side_weight``,
            ``threshold``, ``negative_factor``.
    """

    DEFAULT_BATCH_SIZE = 8

    data: DenseDataConfig = field(default_factory=DenseDataConfig)
    model: str = "dfi"
    tasks: tuple[str, ...] = ()
    augment: DenseAugmentConfig = field(default_factory=DenseAugmentConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    scores: MapScoresConfig = field(default_factory=MapScoresConfig)
    loss: str = "balanced_cross_entropy"
    optimizer: str = "adamw"
    lr: float = 5e-4
    weight_decay: float = 0.01
    schedule: Literal["cosine", "poly", "linear", "constant", "multistep"] = "poly"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.tasks, str):
            raise TypeError(f"tasks must be several names, such as ('edge',), not {self.tasks!r}")
        for task in self.tasks:
            if task not in DENSE_TASKS:
                raise ValueError(unknown("task", task, DENSE_TASKS))
        chosen = tuple(task for task in DENSE_TASKS if task in self.tasks)
        object.__setattr__(self, "tasks", chosen)
        for task in DENSE_TASKS:
            if self.tasks and task not in self.tasks and self.data.of(task).root is not None:
                raise ValueError(
                    f"data.{task}.root is given, but {task} is not among the tasks "
                    f"{', '.join(self.tasks)}: leave one of the two out"
                )
