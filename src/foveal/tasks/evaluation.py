"""``foveal.evaluate``: the scores of a run's best weights on any split of any data."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning import Trainer

from foveal.config import (
    DENSE_TASKS,
    ClassifyConfig,
    DenseConfig,
    MapSetConfig,
    TrainConfig,
    WeakConfig,
    task_of,
    updated,
)
from foveal.data.pseudo_labels import LAYOUT as PSEUDO_LABELS
from foveal.names import unknown
from foveal.tasks import make_setup
from foveal.tasks.chosen_tasks import with_tasks
from foveal.tasks.hardware import trainer_arguments
from foveal.tasks.progress import progress_arguments, quiet_lightning
from foveal.tasks.run import Run, labels_of_round, load, read_config, run_folder, with_part

Split = Literal["train", "val", "test"]
MapSet = str | Path | Mapping[str, Any]
"""A root, or ``root`` with ``layout`` and ``domain``."""
_OF_SET = ("root", "layout", "domain")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores and what they were measured on.

    Attributes:
        scores: ``{"test/accuracy": 0.93, ...}``; the prefix is the split's name.
        pictures: number of pictures.
        origin: where the split's pictures came from, one phrase.
        left_out: one complaint for each damaged picture that was left out.
        remarks: what a reader of the scores should know, such as classes without a score.
    """

    scores: dict[str, float]
    pictures: int
    origin: str
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def evaluate(
    run: str | Path | Run,
    *,
    root: str | Path | None = None,
    layout: str = "auto",
    labels: str | None = None,
    domain: str | None = None,
    sets: Mapping[str, MapSet] | None = None,
    tasks: Sequence[str] | None = None,
    split: Split = "test",
    batch_size: int | None = None,
    workers: int | None = None,
    on_error: Literal["stop", "skip"] | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    fgsm: float | None = None,
    sliding: Mapping[str, Any] | None = None,
    inference: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score a run's best weights.

    Labels are the true ones on every split, also on ``train`` of a run with label noise; but where
    a run from image labels has no masks, its pseudo labels, and the scores are called so.

    Args:
        run: a run folder, or what :func:`foveal.train` returned.
        root: data to score on; None takes the run's own. Classes are matched by name; a dense run
            is scored on all tasks that it has learned and these data have.
        layout: layout of ``root``; a built-in one, such as ``scenes``, has no root.
        labels: which labels of the data, where they have several sets; None takes the run's own,
            or of another ``root`` the first.
        domain: which domain of the data, where they have several; None takes the run's own, or of
            another ``root`` the first.
        sets: task → where the pictures for this task of a dense run are: a root, or a mapping with
            ``root``, ``layout`` and ``domain``. Without ``root`` other tasks are not scored.
        tasks: which tasks of a dense run are scored; None: all that there are data for.
        split: ``train``, ``val`` or ``test``.
        batch_size: pictures per batch; None takes the run's.
        workers: reading processes; None takes the run's.
        on_error: a picture that will not open raises (``stop``) or is left out and listed
            (``skip``); None takes the run's.
        device: None takes the run's.
        fgsm: strength of the fast gradient sign attack that gives ``accuracy_fgsm``, in [0, 1];
            0 is off, None takes the run's.
        sliding: what to change in how a network for pixels looks at whole pictures: fields of
            :class:`foveal.config.SlidingConfig`, such as ``{"scales": (0.75, 1.0, 1.25)}``.
        inference: what to change in how a dense network looks at whole pictures: fields of
            :class:`foveal.config.InferenceConfig`, such as ``{"edge_scales": (0.5, 1.0, 1.5)}``.
        scores: what to change in how its maps are scored: fields of
            :class:`foveal.config.MapScoresConfig`, such as ``{"thresholds": 33}``.

    Raises:
        ValueError: no such run or split, data with other classes or of tasks that the run has not
            learned, or what is of another task's runs: an attack where there is not one class a
            picture, scales where there is.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"the split must be train, val or test, not {split!r}")
    folder = run_folder(run.path if isinstance(run, Run) else run)
    config = read_config(folder)
    if fgsm is not None:
        if not isinstance(config, ClassifyConfig):
            raise ValueError(f"fgsm is of classify runs, and {folder} is of {task_of(config)}")
        config = dataclasses.replace(config, fgsm=fgsm)
    for part, changes in (("sliding", sliding), ("inference", inference), ("scores", scores)):
        config = with_part(config, part, changes, folder)
    model: Any = load(folder)
    config = with_tasks(config, tasks, model.classes, folder)
    if sets is not None or root is not None or layout != "auto":
        config = _with_data(
            config, None if root is None else str(root), layout, sets, tasks, folder
        )
    elif isinstance(config, WeakConfig) and labels is None and domain is None:
        # What its network was chosen and tested by lies in the run's folder.
        own_labels = str(labels_of_round(folder, config.rounds))
        own = dataclasses.replace(config.data, root=own_labels, layout=PSEUDO_LABELS)
        config = dataclasses.replace(config, data=own)
    if isinstance(config, DenseConfig):
        common = {"root": root, "layout": None if layout == "auto" else layout, "domain": domain}
        _refuse_idle(config, [name for name, value in common.items() if value is not None])
    data = config.data
    if labels is not None:
        data = dataclasses.replace(data, labels=labels)
    if domain is not None:
        data = dataclasses.replace(data, domain=domain)
    if batch_size is not None:
        data = dataclasses.replace(data, batch_size=batch_size)
    if workers is not None:
        data = dataclasses.replace(data, workers=workers)
    if on_error is not None:
        data = dataclasses.replace(data, on_error=on_error)
    # The loaded weights are the averaged ones already.
    config = dataclasses.replace(config, data=data, device=device or config.device, ema=False)
    setup = make_setup(config, model, [split])
    task = setup.task(training=False)
    with quiet_lightning():
        trainer = Trainer(
            **trainer_arguments(config),
            **progress_arguments(),
            logger=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
        trainer.test(task, setup.evaluation_loader(split), verbose=False, weights_only=True)
    found = {key.replace("test/", f"{split}/", 1): v for key, v in task.evaluated.items()}
    return Evaluation(
        found, setup.size(split), setup.origins[split], tuple(setup.left_out), task.remarks()
    )


def _with_data(
    config: TrainConfig,
    root: str | None,
    layout: str,
    sets: Mapping[str, MapSet] | None,
    tasks: Sequence[str] | None,
    run: Path,
) -> TrainConfig:
    """Return a run's config with other pictures in place of all of its own.

    Without ``tasks`` a dense run is scored on all that these have.

    Raises:
        ValueError: sets of a run that has none, no set, or an unknown task or key.
        TypeError: a set that is neither a root nor a mapping.
    """
    changes: dict[str, Any] = {"root": root, "layout": layout, "labels": None, "domain": None}
    if not isinstance(config, DenseConfig):
        if sets is not None:
            raise ValueError(
                f"sets (of one task each) are of dense runs, and {run} is of {task_of(config)}"
            )
        return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))
    if sets is not None and not sets:
        raise ValueError(f"sets must be of at least one of {', '.join(DENSE_TASKS)}")
    changes |= {task: MapSetConfig() for task in DENSE_TASKS}
    changes |= {task: _map_set(task, given) for task, given in (sets or {}).items()}
    data = dataclasses.replace(config.data, **changes)
    return dataclasses.replace(config, data=data, tasks=() if tasks is None else config.tasks)


def _map_set(task: str, given: MapSet) -> MapSetConfig:
    if task not in DENSE_TASKS:
        raise ValueError(unknown("task", task, DENSE_TASKS))
    if isinstance(given, str | Path):
        return MapSetConfig(root=str(given))
    if not isinstance(given, Mapping):
        raise TypeError(f"the set of {task} must be a path or a mapping, not {given!r}")
    for key in given:
        if key not in _OF_SET:
            raise ValueError(unknown("config key", str(key), _OF_SET, f"data.{task}."))
    if given.get("root") is None:
        raise ValueError(f"data.{task}.root is missing: say where the pictures for {task} are")
    return updated(MapSetConfig(), {**given, "root": str(given["root"])}, f"data.{task}.")


def _refuse_idle(config: DenseConfig, given: Sequence[str]) -> None:
    """Raise ValueError if something was given about pictures that serve no task."""
    own = [task for task in DENSE_TASKS if config.data.of(task).root is not None]
    if config.tasks:
        serve = any(task not in own for task in config.tasks)
    else:
        serve = config.data.root is not None or not own
    if given and not serve:
        raise ValueError(
            f"data.{given[0]} is of tasks without pictures of their own, and {' and '.join(own)} "
            f"{'has' if len(own) == 1 else 'have'} some: did you mean data.{own[0]}.{given[0]}?"
        )
