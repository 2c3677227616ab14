"""How alike the blocks of a vision transformer are: heat maps of layers, curves against depth."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from foveal.explanation import Collapse
from foveal.tasks.report import ACCENT, BAD, GOOD, INK, Figure, save_figure


def draw_collapse(found: Collapse, folder: Path) -> Figure:
    """Draw attention and feature similarity of all pairs of layers, and what changes with depth.

    Args:
        found: of :func:`foveal.explanation.attention_collapse`.
        folder: where ``collapse.png`` goes.
    """
    depth = len(found.layers)
    canvas = Canvas(figsize=(10.5, 7.0), layout="constrained")
    top, bottom = canvas.subfigures(2, 1, squeeze=False, height_ratios=(1.25, 1))[:, 0]
    left, right = top.subplots(1, 2)
    _matrix(left, found.attention_similarity, "attention maps", lowest=0.0)
    lowest = float(np.nanmin(found.feature_similarity.numpy()))
    _matrix(right, found.feature_similarity, "token features", lowest=min(lowest, 0.9))

    depths = np.arange(1, depth + 1)
    alike, rank, heads = bottom.subplots(1, 3)
    later = depths[1:]
    alike.plot(later, found.with_previous, ".-", color=ACCENT, label="attention, mean cosine")
    share = found.similar_share.diagonal(-1)
    label = f"attention, share above {found.threshold:g}"
    alike.plot(later, share, ".--", color=BAD, label=label)
    features = found.feature_similarity.diagonal(-1)
    alike.plot(later, features, ".:", color=GOOD, label="features, mean cosine")
    smallest = min(float(found.with_previous.nan_to_num(0).min()), 0.0)
    alike.set(title="alike with the block before", ylim=(smallest - 0.05, 1.05))
    alike.legend(fontsize=7, frameon=False)
    rank.plot(depths, found.effective_rank, ".-", color=INK)
    rank.set(title="effective rank of the tokens", ylim=(0, None))
    heads.plot(depths, found.head_diversity, ".-", color=INK)
    heads.set(title="diversity of a block's heads", ylim=(0, None))
    for axes in (alike, rank, heads):
        axes.set(xlabel="block", xlim=(0.5, depth + 0.5))
        axes.title.set_fontsize(9)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    caption = (
        "Mean cosine between what tokens contribute (columns of the attention maps, per head) in "
        "every two blocks, and between the tokens themselves after them; below, against depth. "
        f"Measured on {found.pictures} test pictures. A block counts as similar when more than "
        f"{found.cut:.0%} of its heads and tokens are above {found.threshold:g} with the block "
        f"before: {found.similar_blocks} of {depth} are. Effective rank is 1 when all tokens lie "
        "along one line."
    )
    return save_figure(canvas, folder / "collapse.png", "How alike the blocks are", caption)


def _matrix(axes: Axes, values: Tensor, title: str, lowest: float) -> None:
    depth = len(values)
    edge = (0.5, depth + 0.5, depth + 0.5, 0.5)
    negative = float(np.nanmin(values.numpy())) < min(lowest, 0)
    image = axes.imshow(
        values.numpy(),
        cmap="RdBu_r" if negative else "viridis",
        vmin=-1.0 if negative else lowest,
        vmax=1.0,
        extent=edge,
    )
    axes.set_title(f"similarity of {title}", fontsize=10)
    axes.set(xlabel="block", ylabel="block")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    axes.tick_params(labelsize=8)
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes, shrink=0.85).ax.tick_params(labelsize=8)
