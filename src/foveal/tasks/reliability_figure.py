"""How sure a classifier is, against how often it is right."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from foveal.metrics import calibration_bins, expected_calibration_error
from foveal.tasks.report import INK, Figure, save_figure

# Okabe and Ito's colours and their tints, which colour-blind readers tell apart; the hatching is
# for print without colour.
RIGHT = "#56b4e9"
GAPS = (
    (1, "too sure by", {"edgecolor": "#d55e00", "facecolor": "#fbe3d4", "hatch": "////"}),
    (-1, "not sure enough by", {"edgecolor": "#007a5a", "facecolor": "#d5f0e6", "hatch": "...."}),
)


def draw_reliability(confidence: Tensor, correct: Tensor, folder: Path) -> Figure:
    """Draw accuracy over confidence, and below it the share of pictures of each bin.

    Args:
        confidence: probability of the predicted class, [N] in [0, 1]; nan is left out.
        correct: 1 where the prediction is right, else 0, [N].
        folder: where ``reliability.png`` goes.
    """
    bins = calibration_bins(confidence, correct)
    error = expected_calibration_error(confidence, correct)
    count, sure, right = (values.numpy() for values in bins)
    width, used = 1 / len(count), count > 0
    left = np.arange(len(count)) * width
    bar: dict[str, Any] = {"width": width, "align": "edge", "linewidth": 0.8}
    canvas = Canvas(figsize=(4.8, 6.4), layout="constrained")
    upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
    upper.bar(left[used], right[used], color=RIGHT, edgecolor=INK, **bar)
    for sign, label, look in GAPS:
        some = used & (sign * (sure - right) > 0)
        if some.any():
            gap, base = np.abs(sure - right)[some], np.minimum(sure, right)[some]
            upper.bar(left[some], gap, bottom=base, label=label, **look, **bar)
    ends = left[used], left[used] + width
    upper.hlines(right[used], *ends, color=INK, linewidth=2.2, clip_on=False, label="accuracy")
    upper.plot((0, 1), (0, 1), color=INK, linestyle="--", linewidth=1, label="perfect calibration")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.set_title(f"expected calibration error {error:.4f} ({len(count)} bins)", fontsize=10)

    lower.bar(left, count / max(count.sum(), 1), color="#c3cad1", edgecolor=INK, **bar)
    for values, name, line in ((sure, "confidence", ":"), (right, "accuracy", "-")):
        if used.any():
            mean = np.average(values[used], weights=count[used])
            lower.axvline(mean, color=INK, linewidth=1.4, linestyle=line, label=f"mean {name}")
    lower.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    lower.set(xlabel="confidence", ylabel="pictures")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(alpha=0.25)
    canvas.align_ylabels()
    canvas.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    caption = (
        "Above: of the test pictures about which the network was so sure (confidence: probability "
        "of its answer), the share that it named rightly, and the gap between the two. Below: the "
        "share of pictures in each bin. The expected calibration error is the mean gap over "
        "pictures."
    )
    unknown = len(confidence) - int(count.sum())
    if unknown:
        caption += f" Pictures left out because the network gave no finite answer: {unknown:,d}."
    return save_figure(canvas, folder / "reliability.png", "Reliability", caption)
