"""``foveal.evaluate``: the scores of a run's best weights on any split of any data."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning import Trainer

from foveal.config import ClassifyConfig, task_of
from foveal.tasks import make_setup
from foveal.tasks.hardware import trainer_arguments
from foveal.tasks.progress import progress_arguments, quiet_lightning
from foveal.tasks.run import Run, load, read_config, run_folder, with_part

Split = Literal["train", "val", "test"]


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
    split: Split = "test",
    batch_size: int | None = None,
    workers: int | None = None,
    on_error: Literal["stop", "skip"] | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    fgsm: float | None = None,
    sliding: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score a run's best weights.

    Labels are the true ones on every split, also on ``train`` of a run with label noise.

    Args:
        run: a run folder, or what :func:`foveal.train` returned.
        root: data to score on; None takes the run's own. Classes are matched by name.
        layout: layout of ``root``.
        labels: which labels of the data, where they have several sets; None takes the run's own,
            or of another ``root`` the first.
        domain: which domain of the data, where they have several; None takes the run's own, or of
            another ``root`` the first.
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

    Raises:
        ValueError: no such run or split, data with other classes, or what is of another task's
            runs: an attack where there is not one class a picture, scales where there is.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"the split must be train, val or test, not {split!r}")
    folder = run_folder(run.path if isinstance(run, Run) else run)
    config = read_config(folder)
    if fgsm is not None:
        if not isinstance(config, ClassifyConfig):
            raise ValueError(f"fgsm is of classify runs, and {folder} is of {task_of(config)}")
        config = dataclasses.replace(config, fgsm=fgsm)
    config = with_part(config, "sliding", sliding, folder)
    data = config.data
    if root is not None:
        data = dataclasses.replace(data, root=str(root), layout=layout, labels=None, domain=None)
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
    setup = make_setup(config, load(folder), [split])
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
    scores = {key.replace("test/", f"{split}/", 1): v for key, v in task.evaluated.items()}
    return Evaluation(
        scores, setup.size(split), setup.origins[split], tuple(setup.left_out), task.remarks()
    )
