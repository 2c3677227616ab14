"""Runs that name what a picture shows."""

from dataclasses import dataclass, field
from typing import Literal

from foveal.config.checks import at_least, within
from foveal.config.training import BackboneConfig


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
            within(f"augment.{name}", getattr(self, name), 0, 1)
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"augment.min_scale must lie in (0, 1], not {self.min_scale!r}")
        within("augment.randaugment", self.randaugment, 0, 30)
        for name in ("padding", "color_jitter", "mixup", "cutmix"):
            at_least(f"augment.{name}", getattr(self, name), 0)
        if self.padding and self.min_scale < 1:
            raise ValueError(
                f"augment.padding needs augment.min_scale 1, not {self.min_scale!r}: a random crop "
                "shifts the picture already"
            )


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(BackboneConfig):
    """Train a network to name what a picture shows.

    Attributes:
        augment: random changes to training pictures.
        multi_label: a picture may show several classes or none: those of a CSV or of a data set
            for segmentation; or one, where the data are for classification.
        class_weights: ``balanced`` weights the loss by the inverse of each class's frequency.
        fgsm: strength of the fast gradient sign attack in the final test, in picture values
            [0, 1]; 0 is off. It adds the score ``test/accuracy_fgsm``.
        attention_similarity: weight of a second loss that keeps the attention maps of successive
            blocks of a vision transformer apart; 0 is off.
        attention_similarity_pairs: None compares what each token contributes, in all blocks, as
            the DeepViT paper says; a number compares as its authors' code does, in the first so
            many pairs of blocks.
        hide_weight: of multi_label: weight of a second loss, on the same pictures with a part of
            each hidden, for networks that regions are mined from; 0 is off, 0.5 is usual.
        hide_cells: cells in each row and column of the grid in which is hidden.
        hide_probability: largest probability with which a cell is hidden; each picture's is drawn
            between 0 and it.
        hide_mined: hide, in place of cells, what is mined for one class of the picture with the
            weights that the network had when the epoch began. After two steps of mining the class
            is no longer there for the loss.
    """

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    multi_label: bool = False
    class_weights: Literal["none", "balanced"] = "none"
    fgsm: float = 0.0
    attention_similarity: float = 0.0
    attention_similarity_pairs: int | None = None
    hide_weight: float = 0.0
    hide_cells: int = 8
    hide_probability: float = 0.5
    hide_mined: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        within("fgsm", self.fgsm, 0, 1)
        at_least("attention_similarity", self.attention_similarity, 0)
        if self.attention_similarity_pairs is not None:
            at_least("attention_similarity_pairs", self.attention_similarity_pairs, 1)
        if self.attention_similarity and self.compile:
            raise ValueError(
                "attention_similarity reads maps that a compiled network does not show: leave "
                "compile out"
            )
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
        at_least("hide_weight", self.hide_weight, 0)
        at_least("hide_cells", self.hide_cells, 1)
        within("hide_probability", self.hide_probability, 0, 1)
        if self.hide_weight and not self.multi_label:
            raise ValueError(
                "hide_weight is for networks that regions are mined from, whose classes are "
                "independent: give multi_label, or leave it out"
            )
        if self.hide_mined and not self.hide_weight:
            raise ValueError("hide_mined needs the weight of its loss, hide_weight, such as 0.5")
        if self.hide_mined and (self.augment.mixup or self.augment.cutmix):
            raise ValueError(
                "hide_mined mines one class of a picture, and augment.mixup and augment.cutmix mix "
                "several pictures: leave one of the two out"
            )
