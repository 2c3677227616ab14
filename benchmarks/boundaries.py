"""How long the boundary benchmark takes for a picture of BSDS500.

    python benchmarks/boundaries.py --root BSDS500

Predictions are made up: the annotators' mean, blurred, and smooth noise, so that at low thresholds
there are predicted pixels everywhere. Seconds are those of one processor (its time, not the
clock's), at 99 thresholds and with all annotators, of the whole procedure and of its parts.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from foveal.data.matlab import read_mat
from foveal.metrics import EDGES, boundaries, count_boundaries

PARTS = {"suppress_non_maxima": "crests", "_thinned": "thinning", "match": "matching"}


def truths(path: Path) -> NDArray[np.bool_]:
    """Return what the annotators of a picture drew, bool [A, H, W]."""
    (cells,) = read_mat(path, "groundTruth")
    return np.stack([cell["Boundaries"].item() > 0 for cell in np.atleast_1d(cells)])


def made_up(drawn: NDArray[np.bool_], noise: float, seed: int) -> NDArray[np.uint8]:
    """Return a prediction of 8 bits for a picture."""
    soft = gaussian_filter(drawn.mean(0), 2.0)
    rough = gaussian_filter(np.random.default_rng(seed).normal(size=soft.shape), 1.5)
    values = np.clip(soft / soft.max() + noise * rough / rough.std(), 0, 1)
    return np.rint(255 * values).astype(np.uint8)


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Count the processor's seconds that each part takes."""
    seconds = dict.fromkeys(PARTS, 0.0)
    originals = {name: getattr(boundaries, name) for name in PARTS}

    def timed(name: str) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            start = time.process_time()
            result = originals[name](*args)
            seconds[name] += time.process_time() - start
            return result

        return run

    for name in PARTS:
        setattr(boundaries, name, timed(name))
    try:
        yield seconds
    finally:
        for name, original in originals.items():
            setattr(boundaries, name, original)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of BSDS500")
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--noise", type=float, default=0.12, help="its standard deviation")
    args = parser.parse_args()
    paths = sorted(args.root.rglob("groundTruth/test/*.mat"))[: args.pictures]
    if not paths:
        parser.error(f"{args.root}: no groundTruth/test/*.mat below it")
    print(
        f"| picture | annotators | crests | predicted at 0.1 | s | {' | '.join(PARTS.values())} |"
    )
    print("|---|--:|---|--:|--:|" + "--:|" * len(PARTS))
    for nms in (True, False):
        totals = []
        for seed, path in enumerate(paths):
            drawn = truths(path)
            prediction = made_up(drawn, args.noise, seed)
            with clocks() as seconds:
                start = time.process_time()
                counts = count_boundaries(prediction, drawn, replace(EDGES, nms=nms))
                totals.append(time.process_time() - start)
            print(
                f"| {path.stem} | {len(drawn)} | {'yes' if nms else 'no'} | {counts.predicted[9]} "
                f"| {totals[-1]:.1f} | {' | '.join(f'{s:.1f}' for s in seconds.values())} |",
                flush=True,
            )
        print(f"| median | | {'yes' if nms else 'no'} | | {statistics.median(totals):.1f} | | | |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
