"""Runs that learn what each pixel shows from labels of whole pictures."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from foveal.config.checks import above_zero, at_least, several_scales, within
from foveal.config.classify import ClassifyConfig
from foveal.config.mining import MiningConfig
from foveal.config.segment import SegmentConfig
from foveal.config.training import DataConfig, TrainConfig

STAGES = ("classifier", "mining", "labels", "segment")
"""What such a run does, in this order."""

# What the classifier shares with the whole run: it is given there.
_OF_THE_RUN = ("max_steps", "tensorboard", "device", "threads", "seed", "out")
_OF_ITS_DATA = ("image_size", "batch_size")


@dataclass(frozen=True, kw_only=True)
class WeakClassifierConfig(ClassifyConfig):
    """The classifier from which regions are mined.

    Pictures, machine, seed and folder are those of the whole run; of ``data`` it has its own
    ``image_size`` and ``batch_size``.

    Attributes:
        model: a network whose class activations can be read: ``activation_classifier``, or a
            network that ends in global average pooling and one linear layer, such as ``resnet50``.
        multi_label: true: a picture may show several classes.
        hide_weight: weight of a second loss, on the same pictures with a part of each hidden, such
            as mining shows them; 0 is off.
    """

    model: str = "activation_classifier"
    multi_label: bool = True
    hide_weight: float = 0.5

    def __post_init__(self) -> None:
        if not self.multi_label:
            raise ValueError(
                "classifier.multi_label is true in every run from labels of whole pictures: leave "
                "it out"
            )
        super().__post_init__()
        default = TrainConfig()
        for name in _OF_THE_RUN:
            if getattr(self, name) != getattr(default, name):
                raise ValueError(
                    f"classifier.{name} is that of the whole run: give {name} in its place"
                )
        for f in dataclasses.fields(DataConfig):
            if f.name not in _OF_ITS_DATA and getattr(self.data, f.name) != f.default:
                raise ValueError(
                    f"classifier.data.{f.name} is that of the whole run: give data.{f.name} in its "
                    "place"
                )


@dataclass(frozen=True, kw_only=True)
class ActivationConfig:
    """How the classifier looks at the pictures in which regions are mined.

    Attributes:
        image_size: side of the square to which a whole picture is brought, pixels; None: that of
            the classifier's training.
        batch_size: pictures that are mined at once.
        scales: at which a picture is looked at, such as 0.5,1,1.5,2; their activations are
            averaged.
        flip: also look at the mirror image.
    """

    image_size: int | None = None
    batch_size: int = 16
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        scales = several_scales("activation.scales", self.scales)
        object.__setattr__(self, "scales", scales)
        if self.image_size is not None:
            at_least("activation.image_size", self.image_size, 1)
        at_least("activation.batch_size", self.batch_size, 1)


@dataclass(frozen=True, kw_only=True)
class CrfConfig:
    """A dense conditional random field that fits labels to the colours of a picture.

    The defaults, but for ``iterations``, are those of IRN's official code (Ahn et al. 2019). It
    needs the extra ``crf``.

    Attributes:
        iterations: of mean-field inference, such as 10; 0: no random field.
        confidence: that a label is right, in (0, 1).
        smooth_sxy: reach of the smoothness term, pixels.
        smooth_compat: its weight.
        color_sxy: reach of the colour term, pixels.
        color_srgb: differences of colour that count as small there, of 255.
        color_compat: its weight.
    """

    iterations: int = 0
    confidence: float = 0.7
    smooth_sxy: float = 3.0
    smooth_compat: float = 3.0
    color_sxy: float = 50.0
    color_srgb: float = 5.0
    color_compat: float = 10.0

    def __post_init__(self) -> None:
        at_least("pseudo.crf.iterations", self.iterations, 0)
        if not 0 < self.confidence < 1:
            raise ValueError(f"pseudo.crf.confidence must lie in (0, 1), not {self.confidence!r}")
        for f in dataclasses.fields(self):
            if f.name not in ("iterations", "confidence"):
                above_zero(f"pseudo.crf.{f.name}", getattr(self, f.name))


@dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig:
    """How mined regions become label maps.

    Attributes:
        conflict: who gets a pixel that was mined for several classes: ``score``, the one with the
            largest score; ``smaller``, the one for which fewer pixels were mined; ``ignore``, none.
        steps: of each pair only what was mined in so many first steps; None: all.
        band: share of ``mining.tau`` in (0, 1), such as 0.5: background for which some class's
            activation lay above that share in its last step is ignored; None: no such band.
        empty: what a picture without labels becomes: ``background``, or ``ignore``.
        saliency: folder of a dense run that has learned saliency, or of saliency maps called like
            the pictures: a class on a pixel that is not salient, and background on one that is,
            are ignored; None: no saliency.
        saliency_threshold: from which on a pixel is salient, in [0, 1].
        crf: a dense conditional random field over the finished maps.
    """

    conflict: Literal["score", "smaller", "ignore"] = "score"
    steps: int | None = None
    band: float | None = None
    empty: Literal["background", "ignore"] = "background"
    saliency: str | None = None
    saliency_threshold: float = 0.5
    crf: CrfConfig = field(default_factory=CrfConfig)

    def __post_init__(self) -> None:
        if self.steps is not None:
            at_least("pseudo.steps", self.steps, 1)
        if self.band is not None and not 0 < self.band < 1:
            raise ValueError(f"pseudo.band must lie in (0, 1), not {self.band!r}")
        if self.band is not None and self.steps is not None:
            raise ValueError(
                "pseudo.band is of the last step that was mined, and pseudo.steps leaves steps "
                "out: give mining.max_steps in place of it"
            )
        within("pseudo.saliency_threshold", self.saliency_threshold, 0, 1)


@dataclass(frozen=True, kw_only=True)
class WeakConfig(SegmentConfig):
    """Train a network to name what each pixel shows from labels of whole pictures alone.

    A classifier is trained, regions of its classes are mined, they become label maps, and a
    network for segmentation is trained on those. The fields that are not in a part of their own
    are of that last network.

    Attributes:
        classifier: the classifier that regions are mined from.
        classifier_run: a finished multi-label classify run to mine from; None: one is trained.
        activation: how the classifier looks at the pictures that are mined.
        mining: how regions are mined.
        pseudo: how they become label maps.
        rounds: how often a network for segmentation is trained: in the second round on the
            first one's own predictions, of which only the classes in a picture's labels are kept.
        stage: what is done now: ``classifier``, ``mining``, ``labels``, ``segment``, or ``all`` of
            it.
    """

    classifier: WeakClassifierConfig = field(default_factory=WeakClassifierConfig)
    classifier_run: str | None = None
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    mining: MiningConfig = field(default_factory=MiningConfig)
    pseudo: PseudoLabelConfig = field(default_factory=PseudoLabelConfig)
    rounds: int = 1
    stage: Literal["all", "classifier", "mining", "labels", "segment"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        within("rounds", self.rounds, 1, 2)

    def classify_config(self, out: str) -> ClassifyConfig:
        """Return the run that trains the classifier, in the folder ``out``."""
        own = self.classifier
        data = dataclasses.replace(
            self.data, image_size=own.data.image_size, batch_size=own.data.batch_size
        )
        fields: dict[str, Any] = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
        shared = {name: getattr(self, name) for name in _OF_THE_RUN}
        return ClassifyConfig(**{**fields, **shared, "data": data, "out": out})

    def segment_config(self, labels: str, layout: str, out: str) -> SegmentConfig:
        """Return the run that trains the network, in the folder ``out``.

        Args:
            labels: folder of the pseudo labels.
            layout: how that is laid out.
            out: the run folder.
        """
        data = dataclasses.replace(self.data, root=labels, layout=layout, labels=None, domain=None)
        names = [f.name for f in dataclasses.fields(SegmentConfig)]
        fields: dict[str, Any] = {name: getattr(self, name) for name in names}
        return SegmentConfig(**{**fields, "data": data, "out": out})
