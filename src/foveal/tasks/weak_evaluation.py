"""Scoring the network of a run from image labels, on pictures with masks."""

from collections.abc import Sequence

from torch import nn

from foveal.config import SegmentConfig
from foveal.data.layouts import LAYOUTS
from foveal.tasks.segment import SegmentSetup


class WeakSetup(SegmentSetup):
    """Network and pictures of a run from image labels that is evaluated.

    Args:
        config: the run.
        model: its trained network.
        splits: those that will be used.

    Raises:
        ValueError: pictures without masks, or as of :class:`~foveal.tasks.segment.SegmentSetup`.
    """

    def __init__(
        self,
        config: SegmentConfig,
        model: nn.Module | None = None,
        splits: Sequence[str] = ("train", "val", "test"),
    ) -> None:
        layout = config.data.layout
        if layout in LAYOUTS and not LAYOUTS[layout].serves("segment"):
            raise ValueError(
                f"{config.data.root}: these pictures have labels of the whole picture alone, and "
                "a network for pixels is scored by masks: give --data.root of some, or the folder "
                "labels/ of the run, whose scores are called pseudo"
            )
        super().__init__(config, model, splits)
