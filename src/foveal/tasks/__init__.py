"""Training, evaluation and prediction: what turns networks into results.

A new task is one file here with a ``Setup`` and a ``Task``, a config in ``foveal.config`` and a
line below.
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

import foveal.torchvision_check  # noqa: F401  (before Lightning)
from foveal.config import TrainConfig, task_of

if TYPE_CHECKING:
    from foveal.tasks.setup import Setup

SETUPS = {
    "classify": ("foveal.tasks.classify", "ClassifySetup"),
    "segment": ("foveal.tasks.segment", "SegmentSetup"),
    "dense": ("foveal.tasks.dense", "DenseSetup"),
    "weak": ("foveal.tasks.segment", "SegmentSetup"),
}


def make_setup(
    config: TrainConfig,
    model: nn.Module | None = None,
    splits: Sequence[str] = ("train", "val", "test"),
) -> "Setup":
    """Return the setup of a config's task.

    Args:
        config: the run.
        model: a trained network with ``.classes`` and ``.preprocess``, for evaluation; None
            builds the one that the config describes.
        splits: those that will be used.
    """
    module, name = SETUPS[task_of(config)]
    setup: Setup = getattr(importlib.import_module(module), name)(config, model, splits)
    return setup
