"""What scoring a saliency map costs beside PySODMetrics, per picture and all scores together.

    python benchmarks/metrics.py

Drawn maps of 8 bits: clear ones, as of a trained network (black far from the objects), uncertain
ones (smooth noise everywhere) and grainy ones (no value is 0). Candidates take turns in one
process, a turn being all pictures of a kind, round after round, so that whatever else the machine
does falls on both; figures are of processor time, medians over the rounds, ratios are taken within
a round. Before anything is timed, both must give the same scores. Needs PySODMetrics, best in an
environment of its own: pip install "foveal[reference]".
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter

from foveal.metrics import SaliencyScores

Picture = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]

SIZES = ((300, 400), (96, 128), (768, 1024))
NOISE = {"clear": 0.0, "uncertain": 2.0, "grainy": 0.5}
SAME = {  # ours -> theirs
    "mae": ("MAE", lambda r: r["mae"]),
    "s_measure": ("Smeasure", lambda r: r["sm"]),
    "weighted_f": ("WeightedFmeasure", lambda r: r["wfm"]),
    "max_f_of_mean_curve": ("Fmeasure", lambda r: r["fm"]["curve"].max()),
    "adaptive_f": ("Fmeasure", lambda r: r["fm"]["adp"]),
    "e_measure": ("Emeasure", lambda r: r["em"]["curve"].mean()),
    "adaptive_e": ("Emeasure", lambda r: r["em"]["adp"]),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--sizes", nargs="+", default=[f"{h}x{w}" for h, w in SIZES])
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        import py_sod_metrics  # noqa: F401
    except ImportError as error:
        print(
            f"PySODMetrics cannot be imported ({error}): pip install pysodmetrics", file=sys.stderr
        )
        return 2
    print("| pictures | PySODMetrics, ms | foveal, ms | foveal is faster |")
    print("|---|--:|--:|--:|")
    for size in args.sizes:
        height, width = map(int, size.split("x"))
        for kind in NOISE:
            pictures = drawn(kind, height, width, args.pictures)
            compare(pictures)
            times = measure({"theirs": theirs, "ours": ours}, pictures, args.rounds)
            ratio = statistics.median(
                a / b for a, b in zip(times["theirs"], times["ours"], strict=True)
            )
            cells = " | ".join(f"{1e3 * statistics.median(found):.2f}" for found in times.values())
            print(f"| {width} by {height}, {kind} | {cells} | {ratio:.1f} times |", flush=True)
    return 0


def drawn(kind: str, height: int, width: int, count: int) -> list[Picture]:
    """Return (map, truth), uint8 [H, W], of one or two ellipses each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    pictures = []
    for _ in range(count):
        truth = np.zeros((height, width), bool)
        for _ in range(rng.integers(1, 3)):
            middle, radius = rng.uniform(0.25, 0.75, 2), rng.uniform(0.08, 0.3, 2)
            truth |= ((y - middle[0]) / radius[0]) ** 2 + ((x - middle[1]) / radius[1]) ** 2 <= 1
        blur = max(height, width) / 100
        soft = gaussian_filter(truth + NOISE[kind] * rng.standard_normal(truth.shape), blur)
        if kind == "grainy":
            soft = 0.02 + 0.88 * soft.clip(0, 1) + 0.1 * rng.random(truth.shape)
        pictures.append(((255 * soft.clip(0, 1)).astype(np.uint8), truth.astype(np.uint8) * 255))
    return pictures


def ours(pictures: list[Picture]) -> dict[str, float]:
    """Score with foveal."""
    scores = SaliencyScores()
    for index, picture in enumerate(pictures):
        scores.update(torch.tensor(index), *map(torch.from_numpy, picture))
    return scores.compute()


def theirs(pictures: list[Picture]) -> dict[str, float]:
    """Score with PySODMetrics."""
    import py_sod_metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Fmeasure will be replaced
        metrics = {name: getattr(py_sod_metrics, name)() for name, _ in SAME.values()}
    for prediction, truth in pictures:
        for metric in metrics.values():
            metric.step(pred=prediction, gt=truth)
    results = {name: metric.get_results() for name, metric in metrics.items()}
    return {name: float(read(results[source])) for name, (source, read) in SAME.items()}


def compare(pictures: list[Picture]) -> None:
    """Hold both to the same scores.

    Raises:
        SystemExit: they are not.
    """
    mine, reference = ours(pictures), theirs(pictures)
    for name, value in reference.items():
        if not abs(mine[name] - value) < 1e-9:
            raise SystemExit(f"{name} is {mine[name]!r}, that of PySODMetrics {value!r}")


def measure(
    candidates: dict[str, Callable[[list[Picture]], object]], pictures: list[Picture], rounds: int
) -> dict[str, list[float]]:
    """Return seconds per picture of each candidate in each round; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, score in candidates.items():
            start = time.process_time()
            score(pictures)
            if number:
                times[name].append((time.process_time() - start) / len(pictures))
    return times


if __name__ == "__main__":
    raise SystemExit(main())
