import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Return the module; what it imports from its folder is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "accuracy", raising=False)
    spec = importlib.util.spec_from_file_location(
        "gradient_confusion_benchmark", FOLDER / "gradient_confusion.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("accuracy", None)


class Numbers:
    """Pictures whose only pixel is their number."""

    targets = np.arange(20) % 3

    def __len__(self):
        return 20

    def load(self, index):
        return Image.new("L", (1, 1), index)


def test_batches_are_of_different_pictures_with_their_labels(benchmark):
    setup = SimpleNamespace(
        splits={"train": Numbers()},
        preprocess=lambda image: torch.tensor(np.asarray(image)).view(1, 1, 1),
    )
    batches = list(benchmark.drawn(setup, 5, 4, 5))
    seen = torch.cat([x.flatten() for x, _ in batches])
    assert sorted(seen.tolist()) == list(range(20))
    assert torch.equal(torch.cat([target for _, target in batches]), seen.long() % 3)
    again = list(benchmark.drawn(setup, 5, 2, 5))
    assert torch.equal(again[1][0], batches[1][0])
    assert not torch.equal(next(benchmark.drawn(setup, 6, 1, 5))[0], batches[0][0])
    with pytest.raises(SystemExit, match="need 24 training pictures, and there are 20"):
        next(benchmark.drawn(setup, 5, 4, 6))


def test_the_table_is_over_seeds(benchmark, tmp_path, capsys):
    def line(seed, mean, epochs=4):
        state = {"mean": mean, "std": 0.1, "minimum": -0.2, "share_negative": 0.3}
        run = {"variant": "a", "epochs": epochs, "seed": seed, "test_accuracy": 0.5}
        return {**run, "before": state, "after": state}

    file = tmp_path / "lines.jsonl"
    lines = [line(0, 0.1), line(1, 0.3), line(0, 0.9, epochs=20)]
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert benchmark.main(["--show", str(file)]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    cells = "| 0.200 ± 0.141 | 0.100 ± 0.000 | -0.200 ± 0.000 | 0.300 ± 0.000 |"
    assert rows[:2] == [
        f"| a | before 4 epochs {cells}  | 2 |",
        f"| a | after 4 epochs {cells} 0.500 ± 0.000 | 2 |",
    ]
    assert rows[2] == "| a | before 20 epochs | 0.900 | 0.100 | -0.200 | 0.300 |  | 1 |"


@pytest.mark.slow
def test_what_is_measured_is_not_measured_again(benchmark, tmp_path, monkeypatch):
    data = os.environ.get("FOVEAL_DATA_ROOT")
    if data is None:
        pytest.skip("FOVEAL_DATA_ROOT names no folder with CIFAR10")
    out = tmp_path / "lines.jsonl"
    command = ["--root", f"{data}/CIFAR10", "--out", str(out), "--seeds", "0", "--epochs", "1"]
    command += ["--max_steps", "1", "--batches", "3", "--batch_size", "4"]
    assert benchmark.main(command) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({line["variant"] for line in lines}) == len(lines) == 3
    for line in lines:
        for state in ("before", "after"):
            assert len(line[state]["cosines"]) == 3
            assert np.mean(line[state]["cosines"]) == pytest.approx(line[state]["mean"], abs=1e-5)
    monkeypatch.setattr(benchmark, "measure", None)
    assert benchmark.main(command) == 0
    assert len(out.read_text().splitlines()) == 3
