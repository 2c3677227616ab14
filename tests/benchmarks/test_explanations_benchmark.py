import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Return the module; what it imports from its folder is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "accuracy", raising=False)
    spec = importlib.util.spec_from_file_location(
        "explanations_benchmark", FOLDER / "explanations.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("accuracy", None)


def test_the_table_is_over_seeds(benchmark, tmp_path, capsys):
    def line(variant, seed, value):
        scores = {"gradcam": {"deletion": value, "insertion": 2 * value}}
        return {"variant": variant, "seed": seed, "accuracy": 0.5 + value, "scores": scores}

    lines = [line("plain", 0, 0.1), line("plain", 1, 0.3), line("triplet", 0, 0.25)]
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert benchmark.main(["--show", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| plain | 70.0 ± 14.1 % | gradcam | 0.200 ± 0.141 | 0.400 ± 0.283 |",
        "| triplet | 75.0 % | gradcam | 0.250 | 0.500 |",
    ]


def test_it_asks_for_data_and_a_file(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--root", "somewhere"])
    assert "give --root and --out; or --show FILE" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_measured_is_not_measured_again(benchmark, tmp_path, monkeypatch):
    data = os.environ.get("FOVEAL_DATA_ROOT")
    if data is None:
        pytest.skip("FOVEAL_DATA_ROOT names no folder with PACS")
    out = tmp_path / "lines.jsonl"
    command = ["--root", f"{data}/PACS", "--out", str(out), "--seeds", "0", "--epochs", "1"]
    command += ["--max_steps", "1", "--pictures", "3"]
    assert benchmark.main(command) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["variant"] for line in lines] == ["plain", "triplet"]
    for line in lines:
        assert list(line["scores"]) == ["gradcam", "gradcam++", "random"]
        for scores in line["scores"].values():
            assert all(0 <= value <= 1 for value in scores.values())
    monkeypatch.setattr(benchmark, "measure", None)
    assert benchmark.main(command) == 0
    assert len(out.read_text().splitlines()) == 2
