"""A torch and a torchvision of different builds are named in one sentence, wherever they meet."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

SENTENCE = (
    f"torch {version('torch')} and torchvision {version('torchvision')} do not come from the same "
    "place: install both together, see PyTorch's installation page"
)
MISMATCH = 'raise RuntimeError("operator torchvision::nms does not exist")'

# Imports every module of foveal afresh, the first to meet torchvision each time, and prints how
# each import ended.
IMPORT_EACH = """
import importlib, pkgutil, sys
import torch
import foveal
for module in list(pkgutil.walk_packages(foveal.__path__, "foveal.", onerror=lambda name: None)):
    for name in [n for n in sys.modules if n.split(".")[0] not in BEFORE]:
        del sys.modules[name]
    try:
        importlib.import_module(module.name)
    except Exception as error:
        print(module.name, type(error).__name__, error, sep="|")
    else:
        print(module.name, "", "", sep="|")
""".replace("BEFORE", "{*sys.stdlib_module_names, *'torch numpy __main__'.split()}")


@pytest.fixture
def fake_torchvision(tmp_path):
    """Return a function that runs Python with a torchvision whose import fails like this."""

    def run(failure: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        package = tmp_path / "torchvision"
        package.mkdir()
        (package / "__init__.py").write_text(failure + "\n")
        source = Path(__file__).parents[1] / "src"
        path = os.pathsep.join([str(tmp_path), str(source), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_every_module_of_foveal_says_it(fake_torchvision):
    done = fake_torchvision(MISMATCH, "-c", IMPORT_EACH)
    assert done.returncode == 0, done.stderr
    ended = {line.split("|")[0]: line.split("|")[1:] for line in done.stdout.splitlines()}
    assert {name for name, (kind, _) in ended.items() if not kind} >= {
        "foveal.config",
        "foveal.cli",
    }
    failed = {name: result for name, result in ended.items() if result[0]}
    assert {"foveal.models", "foveal.layers", "foveal.tasks", "foveal.metrics"} <= failed.keys()
    assert {tuple(result) for result in failed.values()} == {("ImportError", SENTENCE)}


def test_the_command_line_ends_with_status_2_and_that_sentence(fake_torchvision):
    done = fake_torchvision(MISMATCH, "-m", "foveal", "models", "mobilenetv2*")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"foveal: error: {SENTENCE}\n"


def test_another_defect_of_torchvision_is_shown_as_it_is(fake_torchvision):
    done = fake_torchvision("raise RuntimeError('no disk')", "-m", "foveal", "models")
    assert done.returncode == 1
    assert "RuntimeError: no disk" in done.stderr
    assert "installation page" not in done.stderr
