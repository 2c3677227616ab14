"""Saving a run's state so that a crash, a full disk or Ctrl-C loses nothing."""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from foveal.files import replacing
from foveal.tasks.task import Task

LAST = "last.ckpt"
MINUTES_BETWEEN_SAVES = 5.0


class RunInterrupted(Exception):
    """Ctrl-C or SIGTERM ended a run; the message says how to go on with it."""

    exit_status = 130


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written atomically in the same folder."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write the checkpoint."""
        # Through memory: on a full disk torch's own writer names neither the cause nor the file.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with replacing(Path(path)) as file:
            # A copy: a view that a failed write's traceback kept crashed Python 3.12 at its exit.
            file.write_bytes(buffer.getvalue())


class SaveRun(Checkpoint):  # a Checkpoint: Lightning calls those after the task's own hooks
    """Keep ``last.ckpt`` and the best weights, and stop cleanly at Ctrl-C or SIGTERM.

    The state is saved after every epoch, every few minutes within one, and at an interruption,
    always between two optimiser steps. An interruption during validation waits for its end; a
    second one, or one during the test, ends the run at once and leaves the last saved state.

    Args:
        folder: the run folder.
        after_epoch: records an epoch's results; called on the main process, after the task's own
            hooks and before the state is saved.
    """

    def __init__(self, folder: Path, after_epoch: Callable[[Task], None]) -> None:
        self.path = folder / LAST
        self.after_epoch = after_epoch
        self.interrupted = False
        self._last_save = time.monotonic()
        self._previous_handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals (after Lightning has set its own handlers)."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._on_signal)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._restore_signals()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the test at once at a signal; nothing is lost, and it may take long."""
        if self.interrupted:  # during the last validation
            raise KeyboardInterrupt
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, _stop)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._restore_signals()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._restore_signals()

    def _restore_signals(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("\ninterrupted: saving the run (again: stop at once)", file=sys.stderr, flush=True)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save within an epoch when it is time to, and when the run is to stop."""
        # The last batch is left to the epoch's end: its validation belongs to the same state.
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.should_stop:
            return
        stop = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        minutes = (time.monotonic() - self._last_save) / 60
        due = trainer.strategy.reduce_boolean_decision(minutes > MINUTES_BETWEEN_SAVES, all=False)
        if stop or due:
            self._save(trainer)
        if stop:
            raise RunInterrupted(
                f"stopped after batch {batch_idx + 1} of epoch {trainer.current_epoch + 1}"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after an epoch and its validation."""
        assert isinstance(pl_module, Task)
        if trainer.is_global_zero:
            self.after_epoch(pl_module)
        self._save(trainer)
        stop = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        if stop and not trainer.fit_loop.done:
            raise RunInterrupted(f"stopped after epoch {trainer.current_epoch + 1}")

    def _save(self, trainer: Trainer) -> None:
        task = trainer.lightning_module
        assert isinstance(task, Task)
        for loss in task.collecting_losses():
            loss.gather()
        trainer.save_checkpoint(self.path)
        self._last_save = time.monotonic()


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
