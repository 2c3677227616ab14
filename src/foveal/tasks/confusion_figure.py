"""Which classes are taken for which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from foveal.tasks.report import INK, Figure, save_figure, short

MOST_CLASSES_DRAWN = 40


def draw_confusion(
    counts: Tensor, classes: Sequence[str], folder: Path, *, shares: bool = False
) -> Figure:
    """Draw what was counted of each true class by predicted class.

    Args:
        counts: int64 [K, K], row = true class, column = predicted class.
        classes: K names, at most ``MOST_CLASSES_DRAWN``.
        folder: where ``confusion.png`` goes.
        shares: write percentages of pixels instead of the counts of pictures.
    """
    table = counts.numpy()
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = 2.5 + 0.42 * len(classes)
    canvas = Canvas(figsize=(side, side), layout="constrained")
    axes = canvas.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [short(name) for name in classes]
    style: dict[str, Any] = {"fontsize": 8, "parse_math": False}  # a name may hold dollar signs
    axes.set_xticks(range(len(classes)), names, rotation=60, ha="right", **style)
    axes.set_yticks(range(len(classes)), names, **style)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row, column in zip(*table.nonzero(), strict=True):
        percent = round(100 * share[row, column])
        if shares and not percent:
            continue
        color = "white" if share[row, column] > 0.5 else INK
        text = f"{percent}" if shares else str(table[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    caption = (
        "Test pixels of each true class (row) by predicted class (column), per cent of the row; "
        "less than half a per cent is not written."
        if shares
        else "Test pictures of each true class (row) by predicted class (column), counts."
    )
    return save_figure(canvas, folder / "confusion.png", "Confusion", caption)
