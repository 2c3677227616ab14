"""``foveal.evaluate``: the scores of a run's best weights on any split of any data."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning import Trainer

from foveal.config import ClassifyConfig, SegmentConfig, task_of
from foveal.tasks import make_setup
from foveal.tasks.hardware import trainer_arguments
from foveal.tasks.progress import progress_arguments, quiet_lightning
from foveal.tasks.run import Run, load, read_config, run_folder

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
    domain: str | None = None,
    split: Split = "test",
    batch_size: int | None = None,
    workers: int | None = None,
    on_error: Literal["stop", "skip"] | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    fgsm: float | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
) -> Evaluation:
    """Score a run's best weights.

    Labels are the true ones on every split, also on ``train`` of a run with label noise.

    Args:
        run: a run folder, or what :func:`foveal.train` returned.
        root: data to score on; None takes the run's own. Classes are matched by name.
        layout: layout of ``root``.
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
        scales: at which a network for pixels looks at pictures; None takes the run's.
        flip: whether it also looks at their mirror images; None takes the run's.

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
    if scales is not None or flip is not None:
        if not isinstance(config, SegmentConfig):
            raise ValueError(
                f"scales and flip are of segment runs, and {folder} is of {task_of(config)}"
            )
        sliding = config.sliding
        sliding = dataclasses.replace(
            sliding,
            scales=sliding.scales if scales is None else tuple(scales),
            flip=sliding.flip if flip is None else flip,
        )
        config = dataclasses.replace(config, sliding=sliding)
    data = config.data
    if root is not None:
        data = dataclasses.replace(data, root=str(root), layout=layout, domain=None)
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
