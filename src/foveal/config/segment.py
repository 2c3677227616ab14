"""Runs that name what each pixel of a picture shows."""

from dataclasses import dataclass, field
from typing import Literal

from foveal.config.checks import at_least, check_scales, several_scales, within
from foveal.config.training import BackboneConfig


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
        check_scales(self.min_scale, self.max_scale)
        within("augment.rotate", self.rotate, 0, 180)
        for name in ("blur", "hflip"):
            within(f"augment.{name}", getattr(self, name), 0, 1)


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
        object.__setattr__(self, "scales", several_scales("sliding.scales", self.scales))
        if self.window is not None:
            at_least("sliding.window", self.window, 0)
        for name in ("stride", "long_side", "window_batch"):
            if getattr(self, name) is not None:
                at_least(f"sliding.{name}", getattr(self, name), 1)


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(BackboneConfig):
    """Train a network to name what each pixel of a picture shows.

    The optimisation is that of segmentation papers: SGD with momentum, a polynomial decay of the
    rate per step, and a rate ten times as high for what is not the backbone's.

    Attributes:
        model: a network for segmentation: ``deeplabv3``, ``lraspp``, ``spnet``.
        augment: random changes to training pictures and their masks.
        sliding: how whole pictures are looked at in validation, test and prediction.
        aux_weight: weight of the loss of the auxiliary head, where the network has one.
        class_weights: ``balanced`` weights the loss by the inverse of each class's share of the
            training pixels; every mask is opened once for that.
    """

    DEFAULT_BATCH_SIZE = 16

    model: str = "deeplabv3"
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
        at_least("aux_weight", self.aux_weight, 0)
        if self.data.label_noise:
            raise ValueError(
                "data.label_noise swaps the one class of a picture, and in segmentation each "
                "pixel has its own: leave it out"
            )
