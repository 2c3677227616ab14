"""What attention lets through, drawn: gates over pictures, theta, the levels that tasks take."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from foveal.data.transforms import Preprocess
from foveal.explanation import Gates, read_gates
from foveal.tasks.report import INK, Figure, save_figure

GATE_PICTURES, COLUMNS_DRAWN = 4, 6
# Both are ordered in lightness and so read by the colour-blind, and in print without colours.
MAP_COLORS, SIGNED_COLORS = "viridis", "PuOr"
QUIET = "#5b6673"
_OPACITY = 0.6  # of a map over its picture

FloatArray = NDArray[np.floating[Any]]


def draw_gates(
    model: nn.Module, preprocess: Preprocess, images: Iterable[Image.Image], folder: Path
) -> list[Figure]:
    """Draw the gates of some layers over pictures, and theta of all layers of re-attention.

    Args:
        model: any network; it runs once for each picture.
        preprocess: what it wants to see.
        images: a few.
        folder: where ``gates.png`` and ``theta.png`` go.

    Returns:
        Those of the two figures that there is something to draw in.
    """
    parameter = next(model.parameters())
    pictures, gates = [], []
    for image in images:
        x = preprocess(image)
        gates.append(read_gates(model, x[None].to(parameter.device, parameter.dtype)))
        pictures.append(preprocess.picture(x).permute(1, 2, 0).numpy())
    figures = []
    chosen = drawable(gates[0]) if gates else []
    if chosen:
        drawn = [[of_picture[k] for k in chosen] for of_picture in gates]
        caption = (
            "For each picture (row) and layer (column), enlarged bilinearly over the picture: the "
            "factor by which the layer multiplies each place, mean over channels. Every map has "
            "its own range of colours, from the lowest to the highest of the two numbers below it."
        )
        if any(one.rows is not None for one in drawn[0]):
            caption += (
                " The curves are the mean gates of the rows (left, larger to the left) and of the "
                "columns (top), each over its own range."
            )
        if any("hw" in one.parts for one in drawn[0]):
            caption += (
                " Of triplet attention, the mean of its three gates stands beside the one over "
                "height and width alone."
            )
        canvas = gate_canvas(pictures, drawn)
        figures.append(
            save_figure(canvas, folder / "gates.png", "What attention lets through", caption)
        )
    mixing = [one for one in gates[0] if one.kind == "reattention"] if gates else []
    if mixing:
        caption = (
            "The learned matrix theta of each layer: how much of each softmax map (column) goes "
            "into each mixed map (row), before they are normalised. White is 0; all layers have "
            "one scale of colours."
        )
        canvas = theta_canvas(mixing)
        figures.append(
            save_figure(canvas, folder / "theta.png", "How re-attention mixes heads", caption)
        )
    return figures


def drawable(gates: Sequence[Gates]) -> list[int]:
    """Return which of a picture's gates to draw: some that have a map of more than one pixel.

    Spread evenly over the layers, first and last included, as many as fill the columns of a figure.
    """
    found = [k for k, one in enumerate(gates) if one.map is not None and min(one.map.shape[1:]) > 1]
    columns = max((len(_panels(gates[k])) for k in found), default=1)
    most = COLUMNS_DRAWN // columns if columns > 1 else 4
    return [found[int(k)] for k in np.linspace(0, len(found) - 1, min(len(found), most)).round()]


@dataclass(frozen=True)
class _Panel:
    """A map over a picture: its title, its values [h, w], and curves [h] and [w] beside it."""

    title: str
    map: Tensor
    rows: Tensor | None = None
    columns: Tensor | None = None


def _panels(gates: Gates) -> list[_Panel]:
    """Return what is drawn of the gates of a layer for one picture."""
    if gates.map is None:
        return []
    rows, columns = (None if v is None else v[0] for v in (gates.rows, gates.columns))
    size = " by ".join(str(side) for side in gates.map.shape[1:])
    name = _wrapped(gates.layer)
    if "hw" not in gates.parts:
        return [_Panel(f"{name}\n{size}", gates.map[0], rows, columns)]
    return [
        _Panel(f"{name}\nmean gate, {size}", gates.map[0], rows, columns),
        _Panel(f"{name}\nheight-width gate", gates.parts["hw"][0]),
    ]


def gate_canvas(pictures: Sequence[FloatArray], gates: Sequence[Sequence[Gates]]) -> Canvas:
    """Return pictures beside the gates over them, a column or two for each layer.

    Args:
        pictures: [H, W, 3] or, grey, [H, W, 1], values in [0, 1].
        gates: of each picture the same layers in the same order, a batch of one each, with maps.
    """
    panels = [[p for one in of_picture for p in _panels(one)] for of_picture in gates]
    columns = 1 + len(panels[0])
    heights = [shape_of(*picture.shape[:2]) for picture in pictures]
    curves = any(panel.rows is not None for panel in panels[0])
    canvas = Canvas(
        figsize=(1.9 * columns, (1.85 if curves else 1.65) * sum(heights) + 0.9),
        layout="constrained",
    )
    cells = canvas.subplots(len(pictures), columns, squeeze=False, height_ratios=heights)
    for axes in cells.flatten():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for row, picture, of_picture in zip(cells, pictures, panels, strict=True):
        row[0].imshow(picture, cmap="gray", vmin=0, vmax=1)
        for axes, panel in zip(row[1:], of_picture, strict=True):
            draw_over(axes, picture, panel.map)
            if panel.rows is not None and panel.columns is not None:
                _curves(axes, panel.rows.numpy(), panel.columns.numpy())
    for axes, panel in zip(cells[0, 1:], panels[0], strict=True):
        height = 1.22 if curves else 1.03  # in one line, above the curves of some
        axes.set_title(panel.title, fontsize=8, color=INK, parse_math=False, y=height)
    draw_bar(canvas, cells)
    return canvas


def shape_of(height: int, width: int) -> float:
    """Return a picture's height over its width, kept where a figure can show it."""
    return min(max(height / width, 0.4), 1.6)


def draw_over(axes: Axes, picture: FloatArray, values: Tensor) -> None:
    """Draw a map over a picture: in colour over grey, with its lowest and highest value below.

    Args:
        axes: where.
        picture: [H, W, 3] or [H, W, 1] in [0, 1].
        values: [h, w], enlarged bilinearly to the picture's size, half-pixel centres.
    """
    values = values.float()
    low, high = (float(value) for value in values.aminmax())
    size = (picture.shape[0], picture.shape[1])
    enlarged = interpolate(values[None, None], size, mode="bilinear")[0, 0].numpy()
    # Black is lifted to grey: on black no colour could be seen.
    axes.imshow(picture.mean(2), cmap="gray", vmin=-0.5, vmax=1)
    axes.imshow(enlarged, cmap=MAP_COLORS, vmin=low, vmax=high, alpha=_OPACITY)
    axes.set_xlabel(_range(low, high), fontsize=7, color=QUIET, labelpad=2)


def _range(low: float, high: float) -> str:
    """Return two numbers with as many digits as tell them apart."""
    digits = 2  # also where there is no range, or no number
    if high > low:
        digits = min(max(digits, 1 - math.floor(math.log10(high - low))), 6)
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _curves(axes: Axes, rows: FloatArray, columns: FloatArray) -> None:
    """Draw the gates of rows and columns beside a picture."""
    top = axes.inset_axes((0, 1.03, 1, 0.16))
    top.plot((np.arange(len(columns)) + 0.5) / len(columns), columns, color=INK, linewidth=1)
    top.set_xlim(0, 1)
    side = axes.inset_axes((-0.19, 0, 0.16, 1))
    side.plot(-rows, (np.arange(len(rows)) + 0.5) / len(rows), color=INK, linewidth=1)
    side.set_ylim(1, 0)
    for inset in (top, side):
        inset.axis("off")


def draw_bar(canvas: Canvas, cells: NDArray[Any]) -> None:
    """Draw what the colours of maps over pictures stand for."""
    colors = ScalarMappable(Normalize(0, 1), MAP_COLORS)
    style: dict[str, Any] = {"location": "bottom", "shrink": 0.3, "aspect": 30, "pad": 0.02}
    bar = canvas.colorbar(colors, ax=cells, alpha=_OPACITY, **style)
    bar.set_ticks([0, 1], labels=["lowest", "highest"], fontsize=7, color=QUIET)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


def theta_canvas(gates: Sequence[Gates]) -> Canvas:
    """Return the matrices theta of layers of re-attention, on one scale of colours.

    Args:
        gates: of kind ``reattention``.
    """
    columns = min(len(gates), 8)
    rows = -(-len(gates) // columns)
    canvas = Canvas(figsize=(max(1.3 * columns + 0.9, 3), 1.55 * rows + 0.5), layout="constrained")
    cells = canvas.subplots(rows, columns, squeeze=False)
    thetas = [one.parts["theta"].numpy() for one in gates]
    top = max(1e-6, *(float(np.abs(theta).max()) for theta in thetas))
    for axes in cells.flatten():
        axes.axis("off")
    for axes, one, theta in zip(cells.flatten(), gates, thetas, strict=False):
        axes.axis("on")
        drawn = axes.imshow(theta, cmap=SIGNED_COLORS, vmin=-top, vmax=top)
        axes.set_title(_wrapped(one.layer), fontsize=7, color=INK, parse_math=False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(QUIET)
        axes.spines[:].set_linewidth(0.5)
    cells[-1, 0].set_xlabel("softmax map", fontsize=7, color=QUIET)
    cells[-1, 0].set_ylabel("mixed map", fontsize=7, color=QUIET)
    bar = canvas.colorbar(drawn, ax=cells, shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    return canvas


def choices_canvas(
    pictures: Sequence[FloatArray],
    gates: Sequence[Sequence[Gates]],
    strides: Sequence[int] | None = None,
) -> Canvas:
    """Return pictures beside the levels that each task takes of them, on each scale.

    The numbers are the weights of all levels; those that are selected, and count, have a colour.

    Args:
        pictures: [H, W, 3] or [H, W, 1], values in [0, 1].
        gates: of each picture those of kind ``selection``, one for each scale from fine to coarse,
            a batch of one each.
        strides: of the levels and so of the scales, from fine to coarse; one level more is DFI's
            pyramid.
    """
    tasks = [name for name in gates[0][0].parts if not name.endswith("_selected")]
    scales, levels = len(gates[0]), gates[0][0].parts[tasks[0]].shape[1]
    canvas = Canvas(
        figsize=(
            1.9 + (0.42 * levels + 0.3) * len(tasks),
            len(pictures) * (0.3 * scales + 0.5) + 0.7,
        ),
        layout="constrained",
    )
    ratios = [1.6, *[0.42 * levels] * len(tasks)]
    cells = canvas.subplots(len(pictures), 1 + len(tasks), squeeze=False, width_ratios=ratios)
    highest = max(float(one.parts[task].max()) for each in gates for one in each for task in tasks)
    for row, picture, of_picture in zip(cells, pictures, gates, strict=True):
        row[0].imshow(picture, cmap="gray", vmin=0, vmax=1)
        row[0].axis("off")
        for axes, task in zip(row[1:], tasks, strict=True):
            weights = torch.stack([one.parts[task][0] for one in of_picture]).numpy()
            chosen = torch.stack([one.parts[f"{task}_selected"][0] for one in of_picture]).numpy()
            draw_table(axes, weights, highest, shade=weights * chosen)
            axes.set_xticks([])
            axes.set_yticks([])
        row[1].set_yticks(range(scales), scale_names(scales, strides))
        row[1].set_ylabel("scale", fontsize=8)
    for axes, task in zip(cells[0, 1:], tasks, strict=True):
        axes.set_title(task, fontsize=10, color=INK)
    for axes in cells[-1, 1:]:
        axes.set_xticks(range(levels), level_names(levels, strides))
        axes.set_xlabel("level", fontsize=8)
    return canvas


def draw_table(axes: Axes, table: FloatArray, top: float, shade: FloatArray | None = None) -> None:
    """Draw numbers as a table [rows, columns], darker where they are larger.

    Args:
        axes: where.
        table: the numbers.
        top: the largest that there may be.
        shade: what the colours stand for, where it is not the numbers.
    """
    shade = table if shade is None else shade
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for place, value in np.ndenumerate(table):
        color = "white" if shade[place] > 0.6 * top else INK
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
        axes.text(place[1], place[0], f"{value:.2f}", color=color, **style)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[:].set_visible(False)


def level_names(levels: int, strides: Sequence[int] | None) -> list[str]:
    """Return names of levels from fine to coarse; with strides, the last is DFI's pyramid."""
    if strides is None:
        return [str(number) for number in range(1, levels + 1)]
    return [*(f"{number}\n1/{stride}" for number, stride in enumerate(strides, start=1)), "pyramid"]


def scale_names(scales: int, strides: Sequence[int] | None) -> list[str]:
    """Return names of scales from fine to coarse."""
    if strides is None:
        return [str(number) for number in range(1, scales + 1)]
    return [f"{number}, 1/{strides[number - 1]}" for number in range(1, scales + 1)]


def _wrapped(name: str, most: int = 20) -> str:
    """Return a layer's name in two lines if it is long, cut at a dot near its middle."""
    dots = [k for k, letter in enumerate(name) if letter == "."]
    if len(name) <= most or not dots:
        return name
    at = min(dots, key=lambda k: abs(k - len(name) / 2)) + 1
    return f"{name[:at]}\n{name[at:]}"
