import importlib.util
from pathlib import Path

from foveal.data.scenes import DOMAINS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scenes.py"
SPEC = importlib.util.spec_from_file_location("scenes_benchmark", SCRIPT)
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


def test_every_domain_has_both_rates(capsys):
    assert benchmark.main(["--count", "3", "--size", "64"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[0] for line in lines] == [*DOMAINS]
    assert all(float(rate) > 5 for line in lines for rate in line[1:])
