import importlib.util
import json
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mining():
    return load("mining")


@pytest.fixture(scope="module")
def simulation():
    return load("mining_simulation")


@pytest.fixture(scope="module")
def case(mining):
    return mining.case("mobilenetv2_050", 3, 48)


def test_both_ways_mine_the_same_pairs(mining, case, monkeypatch):
    mining.compare(case)
    assert case.labels.sum() == 5
    right = mining.one_by_one
    monkeypatch.setattr(mining, "one_by_one", lambda given: [r.at_step(1) for r in right(given)])
    with pytest.raises(SystemExit, match="differs between all at once and one by one"):
        mining.compare(case)


def test_every_way_is_timed_in_every_round(mining):
    times = mining.measure({"a": lambda: None, "b": lambda: sum(range(100))}, 3, "cpu")
    assert [len(found) for found in times.values()] == [3, 3]


def test_scenes_have_one_object_of_each_class(simulation):
    scenes = simulation.draw(200, torch.Generator().manual_seed(0))
    areas = scenes.truth.sum((1, 2)).double()
    assert areas.min() >= 4
    assert areas.max() <= 3.2 * 17**2
    assert (areas < simulation.SMALL).double().mean() == pytest.approx(0.44, abs=0.1)
    assert not scenes.truth[:, [0, -1]].any()
    assert not scenes.truth[:, :, [0, -1]].any()
    evidence = scenes.pictures.flatten(0, 1)
    assert evidence[scenes.truth].mean() > evidence[~scenes.truth].mean() + 0.4
    empty = simulation.draw(20, torch.Generator().manual_seed(0), objects=False)
    assert not empty.truth.any()


def test_a_seed_is_a_line_and_is_not_repeated(simulation, tmp_path, monkeypatch, capsys):
    out = tmp_path / "lines.jsonl"
    monkeypatch.setattr(simulation, "TAUS", (0.4, 0.5))
    monkeypatch.setattr(simulation, "CAM_TAUS", (0.2,))
    monkeypatch.setattr(simulation, "PERCENTILES", (95,))
    command = ["--out", str(out), "--seeds", "7", "--count", "120", "--tuning", "40"]
    command += ["--negatives", "80"]
    simulation.main(command)
    (line,) = [json.loads(text) for text in out.read_text().splitlines()]
    rows = line["rows"]
    assert rows["CAM, tuned"]["forwards"] == 1
    assert rows["fixed, tau 0.7, 4 steps"]["forwards"] == pytest.approx(4, abs=0.3)
    assert rows["adaptive, tuned"]["spearman"] > 0.5
    assert rows["adaptive, tuned"]["iou"] > rows["CAM, tau 0.5"]["iou"]
    assert "| adaptive, tuned | 0." in capsys.readouterr().out
    monkeypatch.setattr(simulation, "measure", None)
    simulation.main(command)
    assert len(out.read_text().splitlines()) == 1


def test_what_falls_short_is_said(simulation):
    def line(adaptive, spearman):
        rows = {name: {"iou": 0.4} for name in simulation.LEAST}
        return {"rows": {**rows, "adaptive, tuned": {"iou": adaptive, "spearman": spearman}}}

    assert simulation.misses([line(0.55, 0.8), line(0.55, 0.8)]) == []
    found = simulation.misses([line(0.45, 0.8), line(0.45, 0.5)])
    assert [text.split(":")[0].split(",")[0] for text in found] == [
        "adaptive minus fixed steps",
        "Spearman 0.65",
    ]
