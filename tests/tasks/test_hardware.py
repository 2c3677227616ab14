import dataclasses
import sys

import pytest
import torch

from foveal.config import ClassifyConfig, SegmentConfig
from foveal.tasks.hardware import environment, trainer_arguments

CPU = ClassifyConfig(device="cpu")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_one_process_on_the_cpu():
    assert trainer_arguments(CPU) == {
        "accelerator": "cpu",
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "precision": "32-true",
        "sync_batchnorm": False,
    }


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("kind", [ClassifyConfig, SegmentConfig])
def test_crops_of_all_gpus_make_batchnorms_statistics(monkeypatch, kind, world, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    found = trainer_arguments(kind())["sync_batchnorm"]
    assert found == (kind is SegmentConfig and world == 2 and gpu)


@pytest.mark.parametrize(("world", "local", "nodes"), [(2, None, 1), (2, 2, 1), (8, 4, 2)])
def test_processes_and_machines_are_those_of_torchrun(monkeypatch, world, local, nodes):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    if local is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    arguments = trainer_arguments(CPU)
    assert arguments["devices"] * arguments["num_nodes"] == world
    assert arguments["num_nodes"] == nodes
    assert arguments["strategy"] == "ddp"


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize(("device", "wanted"), [("auto", True), ("cpu", False)])
def test_auto_takes_a_gpu_if_there_is_one(monkeypatch, gpu, device, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    arguments = trainer_arguments(dataclasses.replace(CPU, device=device))
    assert arguments["accelerator"] == ("gpu" if gpu and wanted else "cpu")


def test_arithmetic(monkeypatch):
    assert trainer_arguments(dataclasses.replace(CPU, amp="bf16"))["precision"] == "bf16-mixed"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    on_gpu = dataclasses.replace(CPU, amp="fp16", device="cuda")
    assert trainer_arguments(on_gpu)["precision"] == "16-mixed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, "--device cuda: PyTorch sees no GPU here; use --device auto or cpu"),
        ({"amp": "fp16"}, "--amp fp16 needs a GPU; on a CPU use --amp bf16 or no"),
    ],
)
def test_what_is_not_here_is_refused(monkeypatch, changes, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        trainer_arguments(dataclasses.replace(CPU, **changes))


def test_threads(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    trainer_arguments(CPU)
    assert chosen == []
    trainer_arguments(dataclasses.replace(CPU, threads=3))
    assert chosen == [3]


def test_the_record_of_the_environment():
    record = environment()
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "unknown" not in record["packages"].values()
    assert record["threads"] == torch.get_num_threads()
    assert record["command"] == sys.argv
