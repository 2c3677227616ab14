import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from foveal.mining import MiningConfig, MiningResult, RegionMiner


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "multi_miner.py"
    spec = importlib.util.spec_from_file_location("multi_miner_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop(spec.name)


def test_objects_have_the_colour_of_their_class(benchmark):
    rng = np.random.default_rng(0)
    areas, gains = [], {k: [] for k in range(1, 5)}
    for _ in range(60):
        picture, mask = benchmark.draw(rng)
        for k, color in enumerate(benchmark.COLORS.values(), 1):
            if (mask == k).any():
                towards = (picture - picture.mean(2, keepdims=True)) @ np.array(color)
                gains[k].append(towards[mask == k].mean() - towards[mask == 0].mean())
                areas.append((mask == k).sum())
    assert all(np.mean(found) > 10 for found in gains.values())
    assert min(areas) < 60
    assert max(areas) > 1500


def test_what_is_written_is_read_again(benchmark, tmp_path):
    benchmark.write_pictures(tmp_path, 3, {"train": 4, "val": 2, "test": 2})
    lines = (tmp_path / "labels.csv").read_text().splitlines()[1:]
    found = benchmark.read(tmp_path, "train", lambda image: torch.zeros(3, 2, 2))
    for line, mask, label in zip(lines[:4], found.masks, found.labels, strict=True):
        names = set(line.split(",")[1].split(";"))
        shown = {n for n, flag in zip(benchmark.COLORS, label, strict=True) if flag}
        assert names == shown
        values = {k for k in mask.unique().tolist() if k}
        assert {list(benchmark.COLORS)[k - 1] for k in values} == names
    assert list(benchmark.COLORS) == sorted(benchmark.COLORS)  # as the classifier numbers them


def test_scores_are_those_of_the_masks(benchmark):
    """One object is found whole, one by half, of one nothing."""
    masks = torch.zeros(1, 8, 8, dtype=torch.long)
    masks[0, :2], masks[0, 4:6, :4], masks[0, 7, :2] = 1, 2, 3
    cams = torch.zeros(1, 4, 8, 8)
    cams[0, 0, :2], cams[0, 1, 4:6, :2] = 1, 1
    labels = torch.tensor([[1, 1, 1, 0]])

    def model(x):
        return cams.mean((2, 3)).expand(len(x), -1), cams.expand(len(x), -1, -1, -1)

    config = MiningConfig(adaptive=False, max_steps=1, min_area=1)
    mined: MiningResult = RegionMiner(model, config).mine(torch.rand(1, 3, 8, 8), labels)
    pictures = benchmark.Pictures(torch.rand(1, 3, 8, 8), masks, labels)
    found = benchmark.score(mined, pictures)
    assert sorted(found.sizes) == [0, 0.5, 1]
    assert found.balanced == pytest.approx(0.5)
    ground = 38 / 44  # nothing that is ground was taken for an object; 6 pixels the other way
    assert found.mined_miou == pytest.approx((ground + 1 + 0.5 + 0) / 4)
    assert found.unmined == 1
    assert found.forwards == 1


def test_the_table_is_over_seeds_and_gains_are_paired(benchmark, tmp_path):
    def line(seed, cam, adaptive):
        one = {"sizes": [0.1, 0.2, 0.3], "mined_miou": 0.4, "spearman": 0.5, "steps": [1, 1, 2]}
        one |= {"forwards": 2.0, "unmined": 0}
        ways = {way: {**one, "balanced": cam} for way in benchmark.WAYS}
        ways["adaptive"] = {**one, "balanced": adaptive}
        return {"seed": seed, "classifier": 0.99, "ways": ways, "networks": {"CAM": 0.5}}

    file = tmp_path / "lines.jsonl"
    lines = [line(0, 0.3, 0.4), line(1, 0.5, 0.6)]
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    table = benchmark.show(file).splitlines()
    assert table[0] == "classifier: 99.0 ± 0.0 % of the labels right"
    assert any(row.startswith("| CAM | 0.400 ± 0.141 | 0.10 ± 0.00 |") for row in table)
    assert "| CAM | 0.100 ± 0.000 |" in table  # 0.1 more with both seeds


@pytest.mark.slow
def test_what_is_measured_is_not_measured_again(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "TAUS", (0.3,))
    monkeypatch.setattr(benchmark, "QUANTILES", (0.9,))
    out = tmp_path / "lines.jsonl"
    command = ["--out", str(out), "--seeds", "5", "--epochs", "2", "--counts", "64", "16", "16"]
    assert benchmark.main(command) == 0
    (line,) = [json.loads(text) for text in out.read_text().splitlines()]
    assert set(line["networks"]) == {"CAM", "adaptive", "true masks"}
    monkeypatch.setattr(benchmark, "measure", None)
    assert benchmark.main(command) == 0
