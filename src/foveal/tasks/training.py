"""``foveal.train``: from a config to a run folder."""

import csv
import importlib.util
import io
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from safetensors.torch import load_file
from timm.optim import get_optimizer_info, list_optimizers  # type: ignore[attr-defined]

from foveal.config import TrainConfig, WeakConfig, task_of
from foveal.names import unknown
from foveal.surgery import REATTENTION, inserted_layers
from foveal.tasks import make_setup
from foveal.tasks.checkpointing import LAST, AtomicCheckpointIO, RunInterrupted, SaveRun
from foveal.tasks.hardware import environment, trainer_arguments
from foveal.tasks.progress import progress_arguments, quiet_lightning
from foveal.tasks.report import draw_curves, write_report
from foveal.tasks.run import (
    CONFIG,
    METRICS,
    WEIGHTS,
    Run,
    differences,
    open_run,
    read_config,
    save_weights,
    write_config,
    write_json,
    write_text,
)
from foveal.tasks.setup import Setup
from foveal.tasks.task import Task


def train(config: TrainConfig, *, resume: bool = False) -> Run:
    """Train, validate after each epoch, test the best weights, and leave a run folder.

    Args:
        config: what to do; see :mod:`foveal.config`.
        resume: go on with the run in ``config.out`` if there is one; a finished one is returned
            as it is. On a CPU the result is bit for bit that of an uninterrupted run.

    Returns:
        The run: ``.path``, ``.metrics``, ``.load()``.

    Raises:
        ValueError: the config, the data or the folder do not fit; one sentence says what would.
        RunInterrupted: Ctrl-C or SIGTERM; the state is saved in ``last.ckpt``.

    Example:
        >>> import foveal
        >>> run = foveal.train(foveal.ClassifyConfig(epochs=4, out="runs/first"))  # doctest: +SKIP
        >>> run.metrics["test/accuracy"]                                           # doctest: +SKIP
        0.861
    """
    optimizers = [
        str(name) for name in list_optimizers() if not get_optimizer_info(str(name)).second_order
    ]
    if config.optimizer not in optimizers:
        raise ValueError(unknown("optimizer", config.optimizer, optimizers))
    if isinstance(config, WeakConfig):
        from foveal.tasks.weak import train_weak  # which trains networks by this function

        return train_weak(config, resume=resume)
    arguments = trainer_arguments(config)
    main_process = os.environ.get("RANK", "0") == "0"
    folder = new_folder(config)
    going_on = resume and (folder / CONFIG).exists()
    if going_on:
        _check_same_run(folder, config)
        if (folder / METRICS).exists():
            print(f"{folder}: this run is finished")
            return open_run(folder)
    elif main_process:
        check_unused(folder)
    seed_everything(config.seed, verbose=False)
    with quiet_lightning():
        training = _Training(make_setup(config), folder, arguments)
        if main_process:
            training.open_folder(going_on)
        try:
            return training.run()
        except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into SystemExit
            raise RunInterrupted(f"stopped at once; {training.how_to_go_on()}") from None
        except RunInterrupted:
            raise
        except BaseException:
            if main_process:
                training.close_failed_folder()
            raise


class _Training:
    """One process's part of a run."""

    def __init__(self, setup: Setup, folder: Path, arguments: dict[str, Any]) -> None:
        self.setup, self.folder = setup, folder
        self.config = setup.config
        self.save = SaveRun(folder, self._after_epoch)
        self.start = time.monotonic()
        callbacks: list[Callback] = [self.save]
        self.task: Task = setup.task()
        self.task.fingerprint = setup.fingerprint()
        if self.config.early_stopping:
            callbacks.append(
                EarlyStopping(
                    f"val/{self.task.monitor}",
                    patience=self.config.early_stopping,
                    mode="max",
                    check_finite=False,  # a score of nothing is none, and no better than others
                )
            )
        loggers: list[Logger] = []
        if self.config.tensorboard:
            if importlib.util.find_spec("tensorboard") is None:
                raise ImportError("--tensorboard needs an extra: pip install foveal[tensorboard]")
            loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
        self.trainer = Trainer(
            **arguments,
            **progress_arguments(*callbacks),
            max_epochs=self.config.epochs,
            accumulate_grad_batches=self.config.accumulate,
            gradient_clip_val=self.config.clip_grad or None,
            logger=loggers,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=folder,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )

    def open_folder(self, going_on: bool) -> None:
        """Write what is known before the training, and say what the data is.

        Raises:
            ValueError: another run took the folder in the meantime, or a resumed run would go on
                with other pictures.
        """
        if going_on:
            self._check_same_pictures()
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                (self.folder / CONFIG).touch(exist_ok=False)
            except FileExistsError:
                raise ValueError(f"--out {self.folder}: another run has just begun there") from None
        write_config(self.folder, self.config)
        write_json(self.folder / "classes.json", list(self.setup.classes))
        write_json(self.folder / "env.json", environment())
        for name, text in self.setup.records().items():
            write_text(self.folder / name, text)
        print(self.setup.describe(), flush=True)
        if layers := inserted_layers(self.setup.model):
            new = sum(p.numel() for layer in layers.values() for p in layer.parameters())
            kinds = ", ".join(
                f"{i.layer} (where: {i.where})"
                for i in self.config.insert
                if i.layer != REATTENTION
            )
            print(f"inserted: {len(layers)} layers, {new:,d} new parameters: {kinds}", flush=True)
        for insertion in self.config.insert:
            if insertion.layer == REATTENTION:
                where = f"(where: {insertion.where})"
                print(f"re-attention in place of attention {where}", flush=True)
        left_out = self.setup.left_out
        if left_out:
            path = self.folder / "skipped.txt"
            write_text(path, "\n".join(left_out) + "\n")
            print(f"damaged pictures left out: {len(left_out)}, listed in {path}", flush=True)

    def _check_same_pictures(self) -> None:
        checkpoint = self.folder / LAST
        if not checkpoint.exists():
            return
        before = torch.load(checkpoint, map_location="cpu", weights_only=True)["foveal"]["data"]
        for split, now in self.task.fingerprint.items():
            if before[split] != now:
                raise ValueError(
                    f"--resume: the {split} pictures are not those of the run in {self.folder} "
                    f"({self.setup.size(split)} now, {before[split].split()[0]} then, compared by "
                    "class, file name and label): bring those back, or choose another --out"
                )

    def close_failed_folder(self) -> None:
        """Free the folder of a run that failed before it had anything worth going on with."""
        if not any((self.folder / name).exists() for name in (LAST, WEIGHTS)):
            names = (CONFIG, "classes.json", "env.json", "skipped.txt", *self.setup.records())
            for name in names:
                (self.folder / name).unlink(missing_ok=True)

    def run(self) -> Run:
        """Train from the start or from the saved state, test, and write the results."""
        self._fit()
        scores = self._test()
        if self.trainer.is_global_zero:
            self._write_results(scores)
        self.trainer.strategy.barrier()
        return open_run(self.folder)

    def _fit(self) -> None:
        checkpoint = self.folder / LAST
        records = None
        if checkpoint.exists():
            state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
            records = state["foveal"]
            if records["finished"]:
                self.task.history = records["history"]
                self.task.load_state_dict(state["state_dict"])  # the report tells of the loss too
                return
        try:
            self.trainer.fit(
                self.task,
                val_dataloaders=self.setup.evaluation_loader("val"),
                ckpt_path=checkpoint if records else None,
                weights_only=True,
            )
        except RunInterrupted as interruption:
            raise RunInterrupted(f"{interruption}; {self.how_to_go_on()}") from None

    def how_to_go_on(self) -> str:
        """Return the command that continues this run."""
        saved = (self.folder / LAST).exists()
        config = self.folder / CONFIG
        command = f"foveal train --config {config} --out {self.folder} --resume"
        return f"{'its state is saved, ' if saved else ''}go on with: {command}"

    def _after_epoch(self, task: Task) -> None:
        if task.improved:
            save_weights(
                self.folder / WEIGHTS,
                task.evaluated_model,
                self.config,
                self.setup.classes,
                self.setup.preprocess,
                self.setup.weights_metadata(),
            )
        write_text(self.folder / "metrics.csv", _csv(task.history))
        row = task.history[-1]
        shown = ("train/loss", f"val/{task.monitor}")
        scores = "  ".join(f"{key} {row[key]:.4f}" for key in shown)
        best = "  (best so far)" if task.improved else ""
        elapsed = time.monotonic() - self.start
        print(
            f"epoch {row['epoch']}/{self.config.epochs}  {scores}  {elapsed:.0f} s{best}",
            flush=True,
        )

    def _test(self) -> dict[str, float]:
        self.trainer.strategy.barrier()
        self.task.evaluated_model.load_state_dict(load_file(self.folder / WEIGHTS))
        loader = self.setup.evaluation_loader("test")
        self.trainer.test(self.task, loader, verbose=False, weights_only=True)
        return self.task.evaluated

    def _write_results(self, scores: dict[str, float]) -> None:
        history = self.task.history
        best = max(history, key=lambda row: row[f"val/{self.task.monitor}"])
        validation = {key: value for key, value in best.items() if key.startswith("val/")}
        metrics = {**scores, **validation, "epoch": best["epoch"]}
        figures_folder = self.folder / "figures"
        figures_folder.mkdir(exist_ok=True)
        curves = self.task.main_scores(validation)
        figures = [draw_curves(history, list(curves), figures_folder)]
        figures += self.setup.figures(self.task, figures_folder)
        main = self.task.main_scores(scores)
        environment_record = json.loads((self.folder / "env.json").read_text())
        write_report(
            self.folder / "report.html",
            self.config,
            metrics,
            figures,
            cards=main,
            data=self.setup.describe(),
            environment=environment_record,
            left_out=self.setup.left_out,
        )
        # Last: a folder with metrics.json is a finished run.
        write_json(self.folder / METRICS, metrics)
        print("  ".join(f"{key} {value:.4f}" for key, value in main.items()))
        for remark in self.task.remarks():
            print(remark)
        print(f"report: {self.folder / 'report.html'}", flush=True)


def new_folder(config: TrainConfig) -> Path:
    """Return the folder of a run: ``out``, or one called after task and time."""
    if config.out is not None:
        return Path(config.out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a run of several processes needs --out, so that all use one folder")
    name = time.strftime(f"{task_of(config)}-%Y%m%d-%H%M%S")
    taken = (n for n in itertools.count(2) if not Path("runs", f"{name}-{n}").exists())
    return Path("runs", f"{name}-{next(taken)}" if Path("runs", name).exists() else name)


def check_unused(folder: Path) -> None:
    """Raise ValueError unless a folder holds no run."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder}: this is a file, it must be a folder")
    if any((folder / name).exists() for name in (CONFIG, LAST, METRICS)):
        raise ValueError(
            f"--out {folder} already holds a run: choose another, or go on with it by --resume"
        )


def _check_same_run(folder: Path, config: TrainConfig) -> None:
    changed = differences(read_config(folder), config)
    if changed:
        raise ValueError(
            f"--resume: the run in {folder} has another {', '.join(changed)}: "
            "leave them as they were, or choose another --out"
        )


def _csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))  # a score may be undefined
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
