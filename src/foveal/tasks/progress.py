"""How a run tells what it is doing: bars in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from rich.progress import Progress

SECONDS_BETWEEN_LINES = 30.0


def progress_callbacks() -> list[Callback]:
    """Return what reports progress within an epoch on this output."""
    if sys.stdout.isatty():
        theme = RichProgressBarTheme(progress_bar="cyan", progress_bar_finished="green")
        return [RichProgressBar(leave=False, theme=theme)]
    return [BatchLines()]


class BatchLines(Callback):
    """A plain line every half minute, for epochs that take longer than that."""

    def __init__(self) -> None:
        self._last_line = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._last_line = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how far the epoch is."""
        now = time.monotonic()
        if trainer.is_global_zero and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  "
                f"batch {batch_idx + 1}/{trainer.num_training_batches}  "
                f"loss {outputs['loss'].item():.4f}",
                flush=True,
            )


@contextmanager
def reading_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, total) that draws a bar in a terminal and else does nothing."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with Progress(transient=True) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
