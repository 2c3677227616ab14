"""How regions are mined from a classifier."""

from dataclasses import dataclass
from typing import Literal

from foveal.config.checks import above_zero, at_least, within
from foveal.names import unknown

_CHOICES = {
    "mode": ("absolute", "relative", "calibrated"),
    "erase": ("pixel", "feature"),
    "statistic": ("topk", "logsumexp", "logit"),
    "fallback": ("none", "argmax_cell"),
}


@dataclass(frozen=True, kw_only=True)
class MiningConfig:
    """How the regions of each (picture, class) pair are mined.

    Attributes:
        tau: an activation above this share of the largest one is a region, in [0, 1).
        keep: a pair goes on while the class's probability in the picture without what was mined is
            at least this (``absolute``), or at least this share of the probability in the whole
            picture (``relative``), in [0, 1].
        mode: when a pair goes on: ``absolute``, ``relative``, or ``calibrated``: while its
            statistic is one that pictures without the class seldom reach.
        quantile: of the calibrated mode: share of the pictures without the class whose statistic
            lies below the threshold, in [0, 1].
        min_area: smallest region that counts, cells of the activation map.
        max_steps: most steps of a pair, at most 255.
        decay: factor by which the score of a region falls with each step, in (0, 1].
        erase: what was mined is hidden in the picture (``pixel``), or in the features before the
            classifier (``feature``): much cheaper, but the features around it have seen it.
        dilation: pixels by which what is erased reaches beyond what was mined.
        statistic: of the calibrated mode: ``topk``, mean of the largest cells of the class's
            activation; ``logsumexp``, logarithm of the mean of their exponentials; or ``logit``.
        top_k: how many cells the mean is over.
        max_area_fraction: share of the picture at which a pair stops, in (0, 1]; None: never.
        fallback: what a pair gets whose first step finds nothing: ``none``, or ``argmax_cell``,
            the cell with the largest activation.
        max_batch_pairs: most pictures that the network sees at once; on a CPU large pictures go in
            smaller groups, which is faster.
        adaptive: ask for each pair whether it goes on; without it all take ``max_steps`` steps
            (fixed-step erasing).
        merged: hide what was mined for any class of the picture (adversarial erasing), not only
            what was mined for the pair's own.
        joint_stop: a pair goes on while any pair of its picture does.
    """

    tau: float = 0.5
    keep: float = 0.5
    mode: Literal["absolute", "relative", "calibrated"] = "calibrated"
    quantile: float = 0.95
    min_area: int = 4
    max_steps: int = 8
    decay: float = 0.9
    erase: Literal["pixel", "feature"] = "pixel"
    dilation: int = 0
    statistic: Literal["topk", "logsumexp", "logit"] = "topk"
    top_k: int = 9
    max_area_fraction: float | None = None
    fallback: Literal["none", "argmax_cell"] = "none"
    max_batch_pairs: int = 64
    adaptive: bool = True
    merged: bool = False
    joint_stop: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(unknown(f"mining.{name}", str(getattr(self, name)), choices))
        if not 0 <= self.tau < 1:
            raise ValueError(f"mining.tau must lie in [0, 1), not {self.tau!r}")
        within("mining.keep", self.keep, 0, 1)
        within("mining.quantile", self.quantile, 0, 1)
        within("mining.max_steps", self.max_steps, 1, 255)  # the step map has 8 bits
        above_zero("mining.decay", self.decay)
        within("mining.decay", self.decay, 0, 1)
        for name, least in (("min_area", 1), ("dilation", 0), ("top_k", 1), ("max_batch_pairs", 1)):
            at_least(f"mining.{name}", getattr(self, name), least)
        if self.max_area_fraction is not None:
            above_zero("mining.max_area_fraction", self.max_area_fraction)
            within("mining.max_area_fraction", self.max_area_fraction, 0, 1)
        if self.joint_stop and not self.adaptive:
            raise ValueError(
                "mining.joint_stop says which pairs go on together, and without mining.adaptive "
                "all do: leave one of the two out"
            )
