"""Processes that count lines."""

import os
import signal

import pytest

from foveal.tasks import counting_pool as module
from foveal.tasks.counting_pool import counting_pool, processors


def in_worker():
    return os.getpid(), os.getppid(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.fixture
def four_processors(monkeypatch):
    monkeypatch.setattr(module, "processors", lambda: 4)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def test_processors_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6}, raising=False)
    assert processors() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert processors() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1


def test_few_pictures_or_one_processor_have_no_pool(four_processors, monkeypatch):
    assert counting_pool(49) is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert counting_pool(1000) is None
    monkeypatch.setattr(module, "processors", lambda: 1)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert counting_pool(1000) is None


@pytest.mark.parametrize(("here", "workers"), [("1", 4), ("2", 2)])
def test_processes_of_one_machine_share_its_processors(four_processors, monkeypatch, here, workers):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    pool = counting_pool(50)
    assert pool._max_workers == workers
    pool.shutdown()


def test_workers_are_other_processes_and_leave_ctrl_c_to_this_one(four_processors):
    with counting_pool(50) as pool:
        worker, parent, ignores = pool.submit(in_worker).result()
    assert worker != parent == os.getpid()
    assert ignores
