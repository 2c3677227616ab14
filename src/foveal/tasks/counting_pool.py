"""Processes that count the pixels of lines while the network looks at the next picture."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from foveal.metrics import MapScores

_WORTH_IT = 50  # pictures: starting processes takes seconds


def counting_pool(pictures: int, threads: int | None = None) -> ProcessPoolExecutor | None:
    """Return one process for each processor that is this process's; None for few pictures.

    Args:
        pictures: to be counted.
        threads: number of processes in place of that of the processors.

    They start as a loader's workers do, which on Linux copies this process: nothing is imported
    anew, and a script needs no ``if __name__ == "__main__":``.
    """
    workers = threads or processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if pictures < _WORTH_IT or workers < 2:
        return None
    context = torch.multiprocessing.get_context()
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start)


class EndCounting(Callback):
    """Let the counting processes go when a test is over, however it ends."""

    def __init__(self, scores: MapScores) -> None:
        self.scores = scores

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End them."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: Any) -> None:
        """End them; what they have not begun is forgotten."""
        self._end()

    def _end(self) -> None:
        pool, self.scores.pool = self.scores.pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # where cpu_count() counts others' too
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
