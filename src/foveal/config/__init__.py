"""What a run is: one frozen dataclass for each task, made in Python, from YAML or from flags.

Standard library only, so that ``foveal --help`` and a wrong flag answer at once.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from foveal.config.classify import AugmentConfig, ClassifyConfig
from foveal.config.dense import (
    DENSE_TASKS,
    DenseAugmentConfig,
    DenseConfig,
    DenseDataConfig,
    InferenceConfig,
    MapScoresConfig,
    MapSetConfig,
)
from foveal.config.mining import MiningConfig
from foveal.config.segment import SegmentAugmentConfig, SegmentConfig, SlidingConfig
from foveal.config.training import BackboneConfig, DataConfig, Insertion, TrainConfig
from foveal.config.values import build, updated
from foveal.config.weak import (
    STAGES,
    ActivationConfig,
    CrfConfig,
    PseudoLabelConfig,
    WeakClassifierConfig,
    WeakConfig,
)
from foveal.names import unknown

__all__ = [
    "DENSE_TASKS",
    "STAGES",
    "TASK_CONFIGS",
    "ActivationConfig",
    "AugmentConfig",
    "BackboneConfig",
    "ClassifyConfig",
    "CrfConfig",
    "DataConfig",
    "DenseAugmentConfig",
    "DenseConfig",
    "DenseDataConfig",
    "InferenceConfig",
    "Insertion",
    "MapScoresConfig",
    "MapSetConfig",
    "MiningConfig",
    "PseudoLabelConfig",
    "SegmentAugmentConfig",
    "SegmentConfig",
    "SlidingConfig",
    "TrainConfig",
    "WeakClassifierConfig",
    "WeakConfig",
    "from_dict",
    "network_task_of",
    "task_of",
    "to_dict",
    "updated",
]

TASK_CONFIGS: dict[str, type[TrainConfig]] = {
    "classify": ClassifyConfig,
    "segment": SegmentConfig,
    "dense": DenseConfig,
    "weak": WeakConfig,
}


def task_of(config: TrainConfig) -> str:
    """Return the task's name for a config object, such as ``"classify"``."""
    for task, config_class in TASK_CONFIGS.items():
        if type(config) is config_class:
            return task
    expected = " or ".join(c.__name__ for c in TASK_CONFIGS.values())
    raise TypeError(f"the config must be a {expected}, not {type(config).__name__}")


def network_task_of(config: TrainConfig) -> str:
    """Return the task whose networks a run trains: of ``weak`` runs ``"segment"``."""
    return "segment" if isinstance(config, SegmentConfig) else task_of(config)


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
    return typing.cast(TrainConfig, build(TASK_CONFIGS[task], fields, ""))
