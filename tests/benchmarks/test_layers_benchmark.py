import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from foveal.layers import CoordinateAttention

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "layers.py"
SPEC = importlib.util.spec_from_file_location("layers_benchmark", SCRIPT)
benchmark = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = benchmark  # dataclasses look themselves up
SPEC.loader.exec_module(benchmark)

SHAPE = (2, 8, 6, 5)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark") / "layers.jsonl"


@pytest.fixture
def run(file, monkeypatch, capsys):
    """Return what runs the command and gives its two outputs."""
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # other tests' business

    def run():
        flags = ["--shapes", "2x8x6x5", "--rounds", "1", "--json", str(file)]
        assert benchmark.main(flags) == 0
        return capsys.readouterr()

    return run


def test_every_case_is_a_line_and_what_should_be_equal_is(run, file):
    run()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 6 * 2 * 2  # layers, layouts, passes
    assert {line["key"] for line in lines} == {case.key() for case in cases()}
    for line in lines:
        same = benchmark.GROUPS[line["layer"]].same
        assert (line["deviation"] is not None) == bool(same)
        assert line["deviation"] is None or line["deviation"] < 1e-9
        assert set(same) <= set(line["candidates"])
        for result in line["candidates"].values():
            assert result["seconds"] > 0
            assert result["copies"] > 0
            assert (result["kept"] is None) == (line["mode"] == "forward")
    coordinate = lines[0]["candidates"]
    assert coordinate["authors'"]["speed"] == 1


def cases():
    return [
        benchmark.Case(layer, SHAPE, layout, mode, 1, 1)
        for layer in benchmark.GROUPS
        for layout in benchmark.LAYOUTS
        for mode in benchmark.MODES
    ]


def test_what_is_in_the_file_is_not_measured_again(run, file):
    run()
    before = file.read_text().splitlines(keepends=True)
    file.write_text("".join(before[:-1]))  # as if stopped before the last case
    out, err = run()
    assert err == "[24/24] baselines, 2x8x6x5, channels_last, training\n"
    after = file.read_text().splitlines(keepends=True)
    assert after[:-1] == before[:-1]
    assert json.loads(after[-1])["key"] == json.loads(before[-1])["key"]
    assert out.count("| 2x8x6x5 |") == 24


def test_a_formulation_that_computes_something_else_stops_the_run():
    case = benchmark.Case("coordinate", SHAPE, "NCHW", "forward", 1, 1)

    class Wrong(CoordinateAttention):
        def forward(self, x):
            gate_h, gate_w = self.gates(x)
            return x * gate_w * gate_h * (1 + 1e-6)

    torch.manual_seed(0)
    right = benchmark.AuthorsCoordinate(8)
    assert benchmark.agreement({"authors'": right, "foveal": CoordinateAttention(8)}, case) < 1e-9
    with pytest.raises(SystemExit, match=r"evaluation of foveal deviates by 1.*e-06 from that of"):
        benchmark.agreement({"authors'": right, "foveal": Wrong(8)}, case)


def test_kept_memory_counts_each_storage_once_and_no_parameters():
    x = torch.randn(SHAPE, requires_grad=True)

    class Product(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, x):
            y = x * self.scale  # keeps x and a parameter
            return y * y  # keeps y, twice

    assert benchmark.kept_bytes(Product(), x) == 2 * x.untyped_storage().nbytes()


def test_the_inverted_residual_costs_what_the_sandglass_does():
    for channels in (64, 256):
        sandglass, inverted = benchmark.GROUPS["sandglass"].make(channels).values()
        costs = [
            benchmark.count(block, (width, 8, 8)).multiply_adds
            for block, width in ((sandglass, channels), (inverted, benchmark.channels_of(inverted)))
        ]
        assert abs(costs[1] / costs[0] - 1) < 0.02


@pytest.mark.parametrize("shape", ["2x8x6", "2x8x0x5", "2x8xax5", ""])
def test_a_shape_that_is_none_is_refused(shape):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--shapes", shape])
