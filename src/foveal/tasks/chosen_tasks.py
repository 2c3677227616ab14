"""Which of the tasks that a dense run has learned are asked for."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveal.config import DENSE_TASKS, DenseConfig, MapSetConfig, TrainConfig, task_of


def with_tasks(
    config: TrainConfig, tasks: Sequence[str] | None, learned: Sequence[str], run: Path
) -> TrainConfig:
    """Return a run's config in which only some tasks, and their pictures, are left.

    Args:
        config: of the run.
        tasks: which; None: all.
        learned: those of the network.
        run: for the message.

    Raises:
        ValueError: no task, an unknown one, one that was not learned, or a run of another kind.
        TypeError: a word in place of several.
    """
    if tasks is None:
        return config
    if not isinstance(config, DenseConfig):
        raise ValueError(f"tasks are of dense runs, and {run} is of {task_of(config)}")
    if not tasks:
        raise ValueError(f"tasks must be at least one of {', '.join(learned)}")
    others: Any = {task: MapSetConfig() for task in DENSE_TASKS if task not in tasks}
    changes: Any = {"data": dataclasses.replace(config.data, **others), "tasks": tasks}
    chosen = dataclasses.replace(config, **changes)
    for task in chosen.tasks:
        if task not in learned:
            raise ValueError(f"{run} has learned {' and '.join(learned)} only, not {task}")
    return chosen
