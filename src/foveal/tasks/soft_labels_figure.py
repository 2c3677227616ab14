"""Which classes a loss with learned soft labels came to take for similar."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from foveal.tasks.report import ACCENT, INK, Figure, save_figure, short

MOST_NAMED, PAIRS_DRAWN, PAIRS_TOLD = 40, 10, 3
GREY = "#c3cad1"


def draw_soft_labels(soft_labels: Tensor, classes: Sequence[str], folder: Path) -> Figure:
    """Draw the soft labels, their diagonal beside them, and the most similar pairs of classes.

    Args:
        soft_labels: a distribution for each true class, [K, K], row = true class.
        classes: K names; up to 40 are written at the axes.
        folder: where ``soft_labels.png`` goes.
    """
    labels = soft_labels.detach().double().cpu().numpy()
    pairs = similar_pairs(labels)
    side = 0.8 + 0.34 * len(labels) if len(labels) <= MOST_NAMED else 6.5  # inches
    canvas = Canvas(figsize=(side, side))
    heat = canvas.add_axes((0, 0, 1, 1))
    _draw_others(heat, labels, side)
    _draw_own(heat.inset_axes((1 + 0.15 / side, 0, 0.75 / side, 1)), labels.diagonal())
    if len(labels) <= MOST_NAMED:
        names = [short(name) for name in classes]
        style: dict[str, Any] = {"fontsize": 8, "parse_math": False}  # a name may hold dollars
        slanted: dict[str, Any] = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
        heat.set_xticks(range(len(names)), names, **slanted, **style)
        heat.set_yticks(range(len(names)), names, **style)
        heat.set(xlabel="other class", ylabel="true class")
    else:
        heat.set(xlabel="number of the other class", ylabel="number of the true class")
    if pairs:
        height = 0.36 * len(pairs) / side
        bars = heat.inset_axes((1 + 1.3 / side, 1 - height, 2.8 / side, height))
        _draw_pairs(bars, labels, pairs, classes)
    caption = (
        "The soft label of each true class (row) at the end of the training. Its share for other "
        "classes is in colour, its share for the class itself, which would outshine them, in the "
        "grey column; grey rows are classes of which nothing was learned (all shares equal)."
    )
    if pairs:
        caption += f" Most similar: {_told(labels, pairs[:PAIRS_TOLD], classes)}."
    return save_figure(canvas, folder / "soft_labels.png", "Learned soft labels", caption)


def similar_pairs(labels: NDArray[Any], most: int = PAIRS_DRAWN) -> list[tuple[int, int]]:
    """Return the (true, other) classes with the largest shares off the diagonal, largest first.

    Args:
        labels: soft labels, [K, K], row = true class.
        most: number of pairs at most.
    """
    others = _others(labels)
    order = np.argsort(-others.filled(0), axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(labels)) for place in order]
    return [place for place in places if others.filled(0)[place] > 0]


def _others(labels: NDArray[Any]) -> np.ma.MaskedArray[Any, Any]:
    """Return the soft labels without the diagonal and without rows where nothing was learned."""
    flat = np.ptp(labels, axis=1) < 1e-6
    return np.ma.array(labels, mask=np.eye(len(labels), dtype=bool) | flat[:, None])


def _draw_others(axes: Axes, labels: NDArray[Any], side: float) -> None:
    """Draw the shares of other classes on a scale of their own."""
    others = _others(labels)
    top = float(others.filled(0).max()) or 1.0
    # The square root keeps small shares visible beside a few large ones.
    image = axes.imshow(others, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=top))
    axes.set_facecolor(GREY)
    scale = axes.inset_axes((0, 1 + 0.12 / side, 1, 0.12 / side))
    assert axes.figure is not None
    ticks = MaxNLocator(3)
    axes.figure.colorbar(image, cax=scale, orientation="horizontal", ticks=ticks)
    scale.xaxis.set_ticks_position("top")
    scale.tick_params(labelsize=8)


def _draw_own(axes: Axes, diagonal: NDArray[Any]) -> None:
    """Draw each class's share for itself as a bar at the height of its row."""
    named = len(diagonal) <= MOST_NAMED
    rows = np.arange(len(diagonal))
    axes.barh(rows, diagonal, height=0.8 if named else 1.0, color=GREY)
    for row, value in enumerate(diagonal if named else ()):
        axes.text(0.06, row, f"{value:.2f}", va="center", fontsize=7, color=INK)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), yticks=[], xticks=[0, 1])
    axes.tick_params(labelsize=8)
    axes.set_title("own class", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_pairs(
    axes: Axes, labels: NDArray[Any], pairs: Sequence[tuple[int, int]], classes: Sequence[str]
) -> None:
    """Draw the largest shares of other classes as bars with the names above."""
    rows = range(len(pairs))
    axes.barh(rows, [labels[pair] for pair in pairs], height=0.28, align="edge", color=ACCENT)
    for row, pair in zip(rows, pairs, strict=True):
        text = _told(labels, [pair], [short(name, 20) for name in classes])
        axes.text(0, row - 0.08, text, va="bottom", fontsize=8, color=INK, parse_math=False)
    axes.set(ylim=(len(pairs) - 0.5, -0.5), yticks=[], xticks=[])
    axes.set_title("most similar", fontsize=9)
    axes.spines[:].set_visible(False)


def _told(labels: NDArray[Any], pairs: Sequence[tuple[int, int]], classes: Sequence[str]) -> str:
    """Return such as ``Shirt → T-shirt/top 0.120, Coat → Pullover 0.094``."""
    return ", ".join(f"{classes[t]} → {classes[o]} {labels[t, o]:.3f}" for t, o in pairs)
