"""What the benchmark of metrics draws, compares and counts."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "metrics.py"


@pytest.fixture(scope="module")
def metrics():
    spec = importlib.util.spec_from_file_location("metrics_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kinds_of_maps_are_what_they_are_called(metrics):
    black = {}
    for kind in metrics.NOISE:
        pictures = metrics.drawn(kind, 60, 80, 2)
        assert all(p.shape == t.shape == (60, 80) for p, t in pictures)
        assert all(set(np.unique(t)) == {0, 255} for _, t in pictures)
        black[kind] = np.mean([p == 0 for p, _ in pictures])
    assert black["clear"] > 0.5 > black["uncertain"] > black["grainy"] == 0


def test_without_the_rival_there_is_one_sentence(metrics, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "py_sod_metrics", None)
    monkeypatch.setattr(metrics.torch, "set_num_threads", lambda number: None)
    assert metrics.main([]) == 2
    assert capsys.readouterr().err.startswith("PySODMetrics cannot be imported")


def test_scores_that_differ_stop_it(metrics, monkeypatch):
    pictures = metrics.drawn("clear", 20, 30, 2)
    monkeypatch.setattr(metrics, "theirs", metrics.ours)
    metrics.compare(pictures)
    monkeypatch.setattr(metrics, "theirs", lambda _: {**metrics.ours(pictures), "s_measure": 0.5})
    with pytest.raises(SystemExit, match=r"s_measure is 0\..*, that of PySODMetrics 0.5"):
        metrics.compare(pictures)


def test_a_row_for_every_kind_and_size(metrics, monkeypatch, capsys):
    pytest.importorskip("py_sod_metrics", reason="PySODMetrics is not installed")
    monkeypatch.setattr(metrics.torch, "set_num_threads", lambda number: None)
    flags = ["--rounds", "1", "--pictures", "2", "--sizes", "20x30", "40x32"]
    assert metrics.main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * len(metrics.NOISE)
    assert lines[2].startswith("| 30 by 20, clear |")
