"""Processes that count the pixels of lines while the network looks at the next picture."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor

import torch

_WORTH_IT = 50  # pictures: starting processes takes seconds


def counting_pool(pictures: int) -> ProcessPoolExecutor | None:
    """Return one process for each processor that is this process's; None for few pictures.

    They start as a loader's workers do, which on Linux copies this process: nothing is imported
    anew, and a script needs no ``if __name__ == "__main__":``.
    """
    workers = processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if pictures < _WORTH_IT or workers < 2:
        return None
    context = torch.multiprocessing.get_context()
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # where cpu_count() counts others' too
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
