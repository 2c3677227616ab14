"""A run that is stopped and continued ends with the same weights, bit for bit."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import foveal
from foveal.tasks import checkpointing
from foveal.tasks.checkpointing import RunInterrupted
from foveal.tasks.run import write_config


def weights(folder):
    state = torch.load(folder / "last.ckpt", weights_only=True)
    return {"best": load_file(folder / "best.safetensors"), "last": state["state_dict"]}


def assert_equal(a, b):
    for part in ("best", "last"):
        assert a[part].keys() == b[part].keys()
        for key, value in a[part].items():
            assert torch.equal(value, b[part][key]), key


@pytest.fixture
def uninterrupted(config, replaced, tmp_path):
    run = foveal.train(replaced(config, out=str(tmp_path / "whole")))
    return weights(run.path), run


@pytest.mark.parametrize("steps", [2, 5, 6, 14])  # mid-epoch, at an epoch's end, in the last epoch
def test_interrupted_and_resumed_equals_uninterrupted(
    config, replaced, uninterrupted, monkeypatch, steps, interrupt_after
):
    with monkeypatch.context() as patch:
        interrupt_after(patch, steps)
        with pytest.raises(RunInterrupted, match="go on with: foveal train --config"):
            foveal.train(config)
    torch.rand(3)  # whatever happens between the two
    run = foveal.train(replaced(config, workers=1), resume=True)
    expected, whole = uninterrupted
    assert_equal(weights(run.path), expected)
    assert run.metrics == whole.metrics
    assert (run.path / "metrics.csv").read_text() == (whole.path / "metrics.csv").read_text()


def test_resuming_after_two_interruptions(config, uninterrupted, monkeypatch, interrupt_after):
    for steps in (3, 8):
        with monkeypatch.context() as patch:
            interrupt_after(patch, steps)
            with pytest.raises(RunInterrupted):
                foveal.train(config, resume=True)
    assert_equal(weights(foveal.train(config, resume=True).path), uninterrupted[0])


def test_accumulation_is_resumed_between_two_steps(
    config, replaced, tmp_path, monkeypatch, interrupt_after
):
    config = replaced(config, accumulate=2, clip_grad=1.0, optimizer="momentum", schedule="poly")
    whole = foveal.train(replaced(config, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(RunInterrupted):
            foveal.train(config)
    run = foveal.train(config, resume=True)
    assert_equal(weights(run.path), weights(whole.path))


def test_a_killed_process_loses_nothing_that_was_saved(config, replaced, uninterrupted):
    """SIGKILL at an arbitrary moment: the newest whole checkpoint is there and goes on."""
    folder = os.path.dirname(config.out)
    write_config_to = replaced(config, epochs=3)
    path = os.path.join(folder, "config")
    os.makedirs(path)
    write_config(__import__("pathlib").Path(path), write_config_to)
    process = subprocess.Popen(
        [sys.executable, "-m", "foveal", "train", "--config", os.path.join(path, "config.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            time.sleep(0.05)
            process.kill()
            break
    process.communicate()
    run = foveal.train(config, resume=True)
    assert_equal(weights(run.path), uninterrupted[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_saves_and_exits_with_130(config, replaced, tmp_path, number):
    """As a terminal's Ctrl-C and a scheduler's SIGTERM arrive: at the reading processes too."""
    write_config(tmp_path, replaced(config, epochs=500, workers=2))
    process = subprocess.Popen(
        [sys.executable, "-m", "foveal", "train", "--config", str(tmp_path / "config.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            os.killpg(process.pid, number)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "go on with: foveal train --config" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "run" / "last.ckpt").exists()


def test_a_finished_run_is_returned_as_it_is(config, uninterrupted):
    run = uninterrupted[1]
    before = (run.path / "metrics.json").stat().st_mtime_ns
    again = foveal.train(foveal.tasks.run.read_config(run.path), resume=True)
    assert again.metrics == run.metrics
    assert (run.path / "metrics.json").stat().st_mtime_ns == before


def test_another_config_is_refused(config, replaced, monkeypatch, interrupt_after):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(RunInterrupted):
            foveal.train(config)
    with pytest.raises(ValueError, match=r"has another data\.batch_size, lr: leave them"):
        foveal.train(replaced(config, lr=1.0, batch_size=5), resume=True)
    with pytest.raises(ValueError, match="already holds a run: choose another"):
        foveal.train(config)


def test_a_full_disk_stops_the_run_and_keeps_the_state(config, uninterrupted, monkeypatch):
    saves = []
    original = checkpointing.torch.save

    def second_save_fails(state, file):
        saves.append(file)
        if len(saves) == 2:
            raise OSError(28, "No space left on device")
        original(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(checkpointing.torch, "save", second_save_fails)
        with pytest.raises(OSError, match="No space left"):
            foveal.train(config)
    run = foveal.train(config, resume=True)
    assert_equal(weights(run.path), uninterrupted[0])
