"""Replay stored results of the papers' official code: python tests/replay_fixture.py FILE...

A fixture is a .safetensors file whose metadata names a class of the authors and its arguments.
The adapter of that class rebuilds foveal's module, fills it with the stored weights and compares
everything else that the file stores. One line is printed per comparison: file, tensor, largest
deviation relative to the largest stored value, tolerance. The exit status is 1 if a deviation is
above its tolerance, a file cannot be read, its class has no adapter, or a tensor was not compared.
"""

import json
import sys
from pathlib import Path

from fixture_adapters import ADAPTERS
from fixture_adapters.core import Comparison, Fixture
from safetensors import safe_open


def read(path: Path) -> Fixture:
    """Read a fixture.

    Raises:
        Exception: the file is missing, damaged or names no class.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if "class" not in metadata:
        raise ValueError("its metadata names no class")
    return Fixture(path, metadata["class"], json.loads(metadata.get("args", "{}")), tensors)


def replay(path: Path) -> list[Comparison]:
    """Compare all that the file stores.

    Raises:
        Exception: the file cannot be read, its class is not known, the module cannot be rebuilt,
            or a stored tensor was not compared.
    """
    fixture = read(path)
    if fixture.class_name not in ADAPTERS:
        raise ValueError(f"no adapter for its class {fixture.class_name!r}")
    comparisons = list(ADAPTERS[fixture.class_name](fixture))
    unused = sorted(set(fixture.tensors) - fixture.used)
    if unused:
        raise ValueError(f"tensors that were not compared: {', '.join(unused)}")
    return comparisons


def main(paths: list[str]) -> int:
    """Replay the files, print a line per comparison, return the exit status."""
    if not paths:
        print(__doc__)
        return 1
    failures = 0
    for path in paths:
        try:
            comparisons = replay(Path(path))
        except Exception as error:  # any failure to replay is this file's failure, not the end
            print(f"{path}: FAILED: {type(error).__name__}: {error}")
            failures += 1
            continue
        for c in comparisons:
            verdict = "ok" if c.passed else "FAILED"
            print(f"{path}  {c.tensor}  {c.deviation:.1e}  (at most {c.tolerance:.0e}) {verdict}")
        failures += not all(c.passed for c in comparisons)
    print(f"{len(paths) - failures} of {len(paths)} files replayed within their tolerances")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
