"""How a run tells what it is doing: bars in a terminal, plain lines elsewhere."""

import functools
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from rich.console import Console
from rich.progress import Progress

SECONDS_BETWEEN_LINES = 30.0


def progress_arguments(*callbacks: Callback) -> dict[str, Any]:
    """Return the Trainer's arguments that report progress within an epoch on this output.

    Args:
        *callbacks: others to go with them.
    """
    if sys.stdout.isatty():
        theme = RichProgressBarTheme(progress_bar="cyan", progress_bar_finished="green")
        bar = EpochBar(leave=False, theme=theme)
        return {"callbacks": [*callbacks, bar], "enable_progress_bar": True}
    return {"callbacks": [*callbacks, BatchLines()], "enable_progress_bar": False}


class EpochBar(RichProgressBar):
    """Lightning's bar, counting epochs from 1 as everything else here does."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


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
    """Yield a function of (done, total): a bar in a terminal, elsewhere a line each half minute."""
    with steps_bar() as tell:
        yield functools.partial(tell, what)


@contextmanager
def steps_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield the same for several things after another: a function of (what, done, total)."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def tell(what: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)

        yield tell
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)
        yield lambda what, done, total: progress.update(
            bar, description=what, completed=done, total=total
        )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice that does not apply here, and let Ctrl-C be Ctrl-C."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # devices found, tips, limits reached
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",  # the number of workers is the user's choice
            ".*ended before the epoch ended.*",  # our sampler goes on at the right batch
            ".*model\\(s\\) in eval mode at the start.*",  # frozen parts are meant to be
            ".*module\\(s\\) in eval mode at the start.*",
            ".*smaller than the logging interval.*",  # we log epochs
            ".*no logger configured.*",
            ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 with torch 2.14
            ".*srun.*available on your system.*",
            ".*sync_dist=True.*",  # scores are computed from all processes' pictures already
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
