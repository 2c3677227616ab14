"""What the benchmark of losses compares and how it counts."""

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "losses.py"


@pytest.fixture(scope="module")
def losses():
    spec = importlib.util.spec_from_file_location("losses_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_forms_compute_the_same(losses, monkeypatch):
    losses.compare()
    original = losses.OneByOne.forward
    monkeypatch.setattr(losses.OneByOne, "forward", lambda self, z, y: 1.01 * original(self, z, y))
    with pytest.raises(AssertionError):
        losses.compare()


def test_every_candidate_is_timed_in_every_round(losses):
    times = losses.measure(losses.candidates(8, 5, "cpu"), 3, "cpu")
    assert set(times) == {"cross entropy", "foveal", "one by one"}
    assert all(len(found) == 3 and min(found) > 0 for found in times.values())
    assert losses.median_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == 3.0


def test_the_wanted_share_is_predicted(losses):
    torch.manual_seed(0)
    logits, target = losses.samples(4000, 10)
    right = (logits.argmax(1) == target).float().mean().item()
    assert right == pytest.approx(losses.RIGHT + (1 - losses.RIGHT) / 10, abs=0.03)
