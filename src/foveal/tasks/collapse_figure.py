"""How alike the blocks of a vision transformer are: heat maps of layers, curves against depth."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from foveal.explanation import Collapse
from foveal.tasks.report import ACCENT, BAD, GOOD, INK, Figure, save_figure

GREY = "#c3cad1"


def draw_collapse(found: Collapse, folder: Path) -> Figure:
    """Draw attention and feature similarity of all pairs of layers, and what changes with depth.

    Args:
        found: of :func:`foveal.explanation.attention_collapse`.
        folder: where ``collapse.png`` goes.
    """
    depth = len(found.layers)
    canvas = Canvas(figsize=(10.5, 7.4), layout="constrained")
    top, bottom = canvas.subfigures(2, 1, squeeze=False, height_ratios=(1.2, 1))[:, 0]
    left, right = top.subplots(1, 2)
    _matrix(left, found.attention_similarity, "attention maps", lowest=0.0)
    lowest = _smallest(found.feature_similarity, below=0.9)
    _matrix(right, found.feature_similarity, "token features", lowest=lowest)

    depths = np.arange(1, depth + 1)
    alike, rank, heads = bottom.subplots(1, 3)
    curves = (
        (found.with_previous, ".-", ACCENT, "attention, mean cosine"),
        (found.similar_share, ".--", BAD, f"attention, share of cosines above {found.threshold:g}"),
        (found.feature_similarity, ".:", GOOD, "features, mean cosine"),
    )
    for values, style, colour, label in curves:
        beside = values.diagonal(-1) if values.ndim == 2 else values
        alike.plot(depths[1:], beside, style, color=colour, label=label)
    smallest = min(_smallest(values, below=0.0) for values, *_ in curves[::2])
    alike.set(title="alike with the block before", ylim=(smallest - 0.05, 1.05))
    alike.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.24))
    rank.plot(depths, found.effective_rank, ".-", color=INK)
    rank.set(title="effective rank of the tokens", ylim=(0, _top(found.effective_rank)))
    heads.plot(depths, found.head_diversity, ".-", color=INK)
    heads.set(title="diversity of a block's heads", ylim=(0, _top(found.head_diversity)))
    for axes in (alike, rank, heads):
        axes.set(xlabel="block", xlim=(0.5, depth + 0.5))
        axes.title.set_fontsize(9)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    tokens = "tokens" if found.class_token else "patch tokens"
    caption = (
        "Mean cosine between what tokens contribute (columns of the attention maps, per head) in "
        f"every two blocks, and between the {tokens} themselves after them, each on its own scale "
        "up to 1 (grey: not compared); below, against depth. "
        f"Measured on {found.pictures} test pictures. A block counts as similar when more than "
        f"{found.cut:.0%} of its heads and tokens are above {found.threshold:g} with the block "
        f"before: {found.similar_blocks} of {depth} are. Effective rank is 1 when those tokens all "
        "lie along one line; the diversity is 0 when all heads look at the same."
    )
    return save_figure(canvas, folder / "collapse.png", "How alike the blocks are", caption)


def _matrix(axes: Axes, values: Tensor, title: str, lowest: float) -> None:
    edge = (0.5, len(values) + 0.5, len(values) + 0.5, 0.5)
    negative = _smallest(values, below=0.0) < 0
    image = axes.imshow(
        values.numpy(),
        cmap="RdBu_r" if negative else "viridis",
        vmin=-1.0 if negative else lowest,
        vmax=1.0,
        extent=edge,
    )
    axes.set_facecolor(GREY)  # shows where a value is missing
    axes.set_title(f"similarity of {title}", fontsize=10)
    axes.set(xlabel="block", ylabel="block")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    axes.tick_params(labelsize=8)
    assert axes.figure is not None
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85, label="mean cosine")
    bar.ax.tick_params(labelsize=8)


def _smallest(values: Tensor, below: float) -> float:
    """Return the smallest of the values that are numbers, or ``below`` if that is smaller."""
    return min(float(values.nan_to_num(1.0).min()), below)


def _top(values: Tensor) -> float:
    """Return the upper end of an axis for values from 0 on that may be missing."""
    return 1.06 * max(float(values.nan_to_num(0.0).max()), 1.0)
