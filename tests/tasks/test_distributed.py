"""Two processes under torchrun give the numbers of one.

Each test starts fresh processes, which import everything anew: about ten seconds apiece.
"""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file

import foveal
from foveal.config import AugmentConfig, MapSetConfig
from foveal.tasks.run import write_config

OLS = "online_label_smoothing"
TIMEOUT = 180  # seconds after which a hang is a failure

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no torch.distributed"
)


def torchrun(*arguments):
    """Return the command of two processes; --standalone finds a free port."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc_per_node", "2", "-m", "foveal", *map(str, arguments)]


def start(command):
    """Start a command that is ended after TIMEOUT; torchrun then ends its workers."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = threading.Timer(TIMEOUT, process.terminate)
    deadline.daemon = True
    deadline.start()
    return process, deadline


def finish(process, deadline):
    output, errors = process.communicate()
    deadline.cancel()
    return process.returncode, output, errors


def run(command):
    status, output, errors = finish(*start(command))
    assert status == 0, errors
    return output


@pytest.fixture
def network_without_batch_statistics(config, replaced):
    """Return a run whose losses depend on no picture but their own; 15 test and 9 val pictures."""
    return replaced(
        config,
        model="test_efficientnet_gn",
        model_args={},
        augment=AugmentConfig(hflip=0.5, min_scale=0.5),  # drawn for each picture
        # Small steps that are proportional to the gradients amplify no rounding errors.
        optimizer="momentum",
        lr=1e-4,
    )


def test_evaluation_gives_the_numbers_of_one_process(config, replaced):
    """Batches of 4, 4, 4 and 3 of 15 pictures: two for each process, of 8 and 7 pictures."""
    done = foveal.train(replaced(config, max_steps=3))
    flags = ("--json", "--data.batch_size", 4, "--fgsm", 0.02)
    output = run(torchrun("eval", done.path, *flags))
    expected = foveal.evaluate(done, batch_size=4, fgsm=0.02).scores
    assert json.loads(output) == expected
    names = {"test/accuracy", "test/nll", "test/ece", "test/accuracy_fgsm"}
    assert names <= expected.keys()


def test_evaluation_of_pixels_gives_the_numbers_of_one_process(segment_run):
    """Batches of 2, 2 and 1 of 5 pictures: two for one process, one for the other."""
    flags = ("--json", "--data.batch_size", 2, "--sliding.flip")
    output = run(torchrun("eval", segment_run.path, *flags))
    expected = foveal.evaluate(segment_run, batch_size=2, sliding={"flip": True}).scores
    assert json.loads(output) == expected
    assert {"test/miou", "test/pixel_accuracy", "test/iou/disc"} <= expected.keys()


def test_evaluation_of_maps_gives_the_numbers_of_one_process(dense_run):
    """Batches of 1: two pictures for each process, whose lines both count."""
    output = run(torchrun("eval", dense_run.path, "--json", "--data.batch_size", 1))
    expected = foveal.evaluate(dense_run, batch_size=1).scores
    assert json.loads(output) == expected
    assert {"test/mean", "test/saliency/max_f", "test/edge/ods", "test/skeleton/ap"} <= (
        expected.keys()
    )


@pytest.mark.slow
def test_maps_trained_by_two_processes(dense_config, paint_discs, tmp_path):
    """One process sees the only picture with skeletons, and both know its scores."""
    sets = {}
    for task, counts in (("saliency", (6, 3, 3)), ("skeleton", (4, 1, 1))):
        sets[task] = MapSetConfig(root=str(paint_discs(tmp_path / task, [task], counts=counts)))
    data = dataclasses.replace(dense_config.data, root=None, batch_size=2, **sets)
    config = dataclasses.replace(dense_config, data=data, out=str(tmp_path / "two"))
    write_config(tmp_path, config)
    run(torchrun("train", "--config", tmp_path / "config.yaml"))
    written = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert written["test/skeleton/ods"] is not None
    for split in ("val", "test"):
        for key, value in foveal.evaluate(tmp_path / "two", split=split).scores.items():
            assert value == written[key], key


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", OLS])
def test_pixels_trained_by_two_processes(segment_config, replaced, tmp_path, loss):
    """What the two processes wrote at the end, one process finds again, to the last digit."""
    config = replaced(segment_config, loss=loss, batch_size=2)
    write_config(tmp_path, replaced(config, out=str(tmp_path / "two")))
    run(torchrun("train", "--config", tmp_path / "config.yaml"))
    written = json.loads((tmp_path / "two" / "metrics.json").read_text())
    for split in ("val", "test"):
        for key, value in foveal.evaluate(tmp_path / "two", split=split).scores.items():
            assert value == written[key], key


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "loss"),  # 9 val pictures: 5 batches, 2, 1
    [(2, "cross_entropy"), (5, "cross_entropy"), (12, "cross_entropy"), (5, OLS), (2, OLS)],
)
def test_training_equals_one_process_with_twice_the_batch(
    network_without_batch_statistics, replaced, tmp_path, batch_size, loss
):
    config = replaced(network_without_batch_statistics, batch_size=batch_size, loss=loss)
    write_config(tmp_path, replaced(config, out=str(tmp_path / "two")))
    run(torchrun("train", "--config", tmp_path / "config.yaml"))
    foveal.train(replaced(config, out=str(tmp_path / "one"), batch_size=2 * batch_size))

    rows, names = [], ("one", "two")
    for name in names:
        with (tmp_path / name / "metrics.csv").open() as file:
            rows.append(list(csv.DictReader(file)))
    assert [row["epoch"] for row in rows[1]] == ["1", "2", "3"]
    for one, two in zip(*rows, strict=True):
        assert one["step"] == two["step"]
        for key in ("train/loss", "val/nll"):
            assert float(two[key]) == pytest.approx(float(one[key]), rel=1e-5)
    one, two = (load_file(tmp_path / name / "best.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6)

    states = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in names]
    one, two = (state["state_dict"] for state in states)
    for key in (key for key in one if key.startswith("loss.")):  # the soft labels, if there are any
        torch.testing.assert_close(two[key], one[key], rtol=1e-5, atol=1e-6)
        assert key != "loss.soft_labels" or not one[key].eq(1 / 3).all()

    # What the two processes wrote at the end, one process finds again, to the last digit.
    written = json.loads((tmp_path / "two" / "metrics.json").read_text())
    for split in ("val", "test"):
        for key, value in foveal.evaluate(tmp_path / "two", split=split).scores.items():
            assert value == written[key], key


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_saves_and_the_run_goes_on(config, replaced, tmp_path, number):
    config = replaced(config, workers=1, epochs=20, batch_size=4)  # 9 val pictures: 2 batches and 1
    whole = replaced(config, out=str(tmp_path / "whole"))
    write_config(tmp_path, whole)
    run(torchrun("train", "--config", tmp_path / "config.yaml"))

    write_config(tmp_path, config)
    process, deadline = start(torchrun("train", "--config", tmp_path / "config.yaml"))
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            process.send_signal(number)  # torchrun passes it on to its workers
            break
    status, _, errors = finish(process, deadline)
    assert status != 0
    assert "go on with: foveal train" in errors
    stopped = tmp_path / "run"
    assert not (stopped / "metrics.json").exists()
    state = torch.load(stopped / "last.ckpt", weights_only=True)
    assert not state["foveal"]["finished"]

    run(torchrun("train", "--config", tmp_path / "config.yaml", "--resume"))
    for name in ("metrics.csv", "metrics.json"):
        assert (stopped / name).read_text() == (tmp_path / "whole" / name).read_text()
    one, two = (load_file(tmp_path / name / "best.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.slow
def test_wrong_input_is_said_once_and_ends_both_processes(config, replaced, tmp_path):
    write_config(tmp_path, replaced(config, model="test_efficientnt"))
    status, _, errors = finish(*start(torchrun("train", "--config", tmp_path / "config.yaml")))
    assert status != 0
    assert "did you mean 'test_efficientnet'" in errors
