import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "gaussian_domains.py"


@pytest.fixture(scope="module")
def domains():
    spec = importlib.util.spec_from_file_location("gaussian_domains_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_domains_have_the_same_classes_seen_differently(domains):
    source, target = domains.draw(0, False)
    assert source.x.shape == target.x.shape == (1500, 32)
    assert source.x.abs().max() <= 1
    gaps = []
    for k in range(10):
        ours, theirs = source.x[source.y == k], target.x[target.y == k]
        assert 100 < len(ours) < 200
        gaps.append((ours.mean(0) - theirs.mean(0)).norm() / ours.std(0).norm())
    assert 0.3 < torch.stack(gaps).mean() < 2
    again, _ = domains.draw(0, False)
    assert again.x.equal(source.x)
    _, rare = domains.draw(0, True)
    counts = rare.y.bincount(minlength=10)
    assert counts[0] / counts[-1] == pytest.approx(10, rel=0.4)


def test_each_method_trains_all_that_it_has(domains):
    generator = torch.Generator().manual_seed(0)
    f_s, f_t = (torch.randn(20, domains.FEATURES, generator=generator) for _ in "st")
    z_s, z_t = (torch.randn(20, 10, generator=generator) for _ in "st")
    y = torch.arange(20) % 10
    for name, make in domains.METHODS.items():
        torch.manual_seed(0)
        _, objective = make()
        leaves = [x.clone().requires_grad_() for x in (f_s, z_s, f_t, z_t)]
        loss = objective(domains.Batch(*leaves[:2], y, *leaves[2:], 0.5))
        loss.backward()
        reached = [x.grad is not None and bool(x.grad.any()) for x in leaves]
        adversarial = name not in ("source only", "variance alone", "MCC", "BNM")
        assert reached[0] == adversarial, name
        assert reached[3] == (
            name in ("MCC", "BNM", "variance alone", "PANDA", "PANDA without variance")
            or "+E" in name
            or name == "PRONOUN + variance"
        ), name


def test_a_method_and_seed_is_a_line_and_is_not_repeated(domains, tmp_path, monkeypatch, capsys):
    out = tmp_path / "lines.jsonl"
    command = ["--out", str(out), "--seeds", "0", "1", "--steps", "30"]
    command += ["--methods", "source only", "DANN"]
    domains.main(command)
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert [(line["seed"], line["method"]) for line in lines] == [
        *((0, "source only"), (0, "DANN"), (1, "source only"), (1, "DANN"))
    ]
    assert all(line["source_accuracy"] > 0.5 for line in lines)
    assert "| DANN - source only | " in capsys.readouterr().out
    monkeypatch.setattr(domains, "measure", None)
    domains.main(command)
    assert len(out.read_text().splitlines()) == 4


def test_intervals_are_paired(domains):
    accuracy = {"DANN": (0.5, 0.7, 0.9), "concat": (0.51, 0.72, 0.9), "NOUN": (0.53, 0.72, 0.94)}
    lines = [
        {"method": method, "seed": seed, "target_accuracy": value, "source_accuracy": 1.0}
        for method, values in accuracy.items()
        for seed, value in enumerate(values)
    ]
    values = domains.difference(lines, "NOUN", "concat")
    assert values == pytest.approx([0.02, 0.0, 0.04])
    # Student's t of 2 degrees of freedom at 0.975 is 4.303
    assert domains.half_interval(values) == pytest.approx(4.3027 * 0.02 / math.sqrt(3), rel=1e-4)
    assert domains.half_interval([0.1]) == math.inf
    (miss,) = domains.misses(lines)
    assert miss.startswith("NOUN minus concat: interval above 0 is asked for")
    assert "| NOUN - concat | +0.020 ± 0.050 |" in domains.show(lines)
