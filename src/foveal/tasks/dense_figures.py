"""The pictures of a run that learns maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from torch import Tensor, nn

from foveal.data.maps import FloatMap
from foveal.layers import SelectiveIntegration
from foveal.layers.selective_integration import largest
from foveal.metrics import MapScores, SaliencyScores
from foveal.metrics.boundaries import BoundaryScores
from foveal.metrics.saliency_curves import BETA_SQUARED, f_measure
from foveal.models.dfi import DFI
from foveal.tasks.dense import DenseSetup, DenseTask, maps_of
from foveal.tasks.gate_figures import draw_table, level_names, scale_names
from foveal.tasks.report import ACCENT, BAD, INK, Figure, save_figure

PICTURES_DRAWN, PICTURES_AVERAGED = 8, 64
QUIET, LINE = "#8a94a0", "#d5dae0"
_PIXELS = 180  # of a cell's side, about: what is larger is shrunk


def draw(task: DenseTask, setup: DenseSetup, folder: Path) -> list[Figure]:
    """Draw what a tested network does, and return the figures in the report's order."""
    figures = [_pictures(task, setup, folder), draw_precision_recall(task.scores, folder)]
    model = task.evaluated_model
    selected = _selected(model)
    if isinstance(model, DFI) and selected is not None:
        gates = _gates(model, task, setup)
        backbone: Any = model.backbone
        strides = backbone.feature_info.reduction()
        figures.append(draw_selections(gates, selected, strides, folder))
    return figures


def spread(sizes: Sequence[int], most: int) -> list[int]:
    """Return up to ``most`` indices of pictures of several sets, the sets in turn.

    Args:
        sizes: number of pictures of each set; the first of the next follows the last of one.
        most: how many; each set gets as many as the others, if it has them.
    """
    counts = [0] * len(sizes)
    for _ in range(min(most, sum(sizes))):
        open_sets = [k for k, size in enumerate(sizes) if counts[k] < size]
        counts[min(open_sets, key=lambda k: counts[k])] += 1
    starts = np.cumsum([0, *sizes[:-1]])
    return [
        int(start + place)
        for start, size, count in zip(starts, sizes, counts, strict=True)
        for place in np.linspace(0, size - 1, count).round()
    ]


def _pictures(task: DenseTask, setup: DenseSetup, folder: Path) -> Figure:
    """Draw test pictures, and of each task the truth beside the prediction."""
    pictures = setup.splits["test"]
    samples = [pictures.load(index) for index in spread(pictures.sizes, PICTURES_DRAWN)]
    model = task.evaluated_model.eval()
    x = (_input(model, setup.preprocess(image)) for image, _ in samples)
    with torch.inference_mode():
        maps = [
            {name: found.nan_to_num(0, 0, 0).cpu().numpy() for name, found in of_picture.items()}
            for of_picture in maps_of(model, x, task.tasks, task.config)
        ]
    columns = 1 + 2 * len(task.tasks)
    side = min(11 / columns, 2.6)
    ratios = [min(max(image.height / image.width, 0.4), 1.6) for image, _ in samples]
    canvas = Canvas(figsize=(side * columns, side * sum(ratios) + 0.5), layout="constrained")
    cells = canvas.subplots(len(samples), columns, squeeze=False, height_ratios=ratios)
    titles = [f"{name}\n{what}" for name in task.tasks for what in ("truth", "prediction")]
    for axes, title in zip(cells[0], ("picture", *titles), strict=True):
        axes.set_title(title, fontsize=10, color=INK)
    for row, (image, truths), predictions in zip(cells, samples, maps, strict=True):
        row[0].imshow(image)
        for column, name in enumerate(task.tasks):
            draw_map(row[1 + 2 * column], truths.get(name))
            draw_map(row[2 + 2 * column], predictions[name])
        for axes in row:
            axes.set_box_aspect(image.height / image.width)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color(LINE)
    caption = (
        "Test pictures; white is 0 and black is 1. Where several people drew the lines, the truth "
        "is the share of them who marked a pixel. Large maps are shrunk so that thin lines remain: "
        "a pixel is as dark as the darkest that it stands for."
    )
    return save_figure(canvas, folder / "predictions.png", "Test pictures", caption)


def draw_map(axes: Axes, values: FloatMap | None) -> None:
    """Draw a map [H, W] of values in [0, 1], dark on white, or say that there is none."""
    if values is None:
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "color": QUIET}
        axes.text(0.5, 0.5, "no label", transform=axes.transAxes, **style)
        return
    axes.imshow(shrunk(values, _PIXELS), cmap="gray_r", vmin=0, vmax=1, aspect="auto")


def shrunk(values: FloatMap, side: int) -> FloatMap:
    """Return a map [H, W] whose longer side is less than twice ``side``, or at most that.

    The value of a pixel is the largest of those that it stands for, or lines would fade.
    """
    step = max(1, max(values.shape) // side)
    rows, columns = (-(-length // step) for length in values.shape)
    whole = np.zeros((rows * step, columns * step), np.float32)
    whole[: values.shape[0], : values.shape[1]] = values
    return np.asarray(whole.reshape(rows, step, columns, step).max((1, 3)))


def draw_precision_recall(scores: MapScores, folder: Path) -> Figure:
    """Draw the precision and recall of each task over all thresholds.

    Args:
        scores: after ``compute``.
        folder: where ``precision_recall.png`` goes.
    """
    canvas = Canvas(figsize=(max(3.6 * len(scores.of_task), 4), 4.1), layout="constrained")
    cells = canvas.subplots(1, len(scores.of_task), squeeze=False)[0]
    for axes, (name, of_task) in zip(cells, scores.of_task.items(), strict=True):
        _curve(axes, name, of_task)
    caption = (
        "Each point of a curve is one threshold at which the maps are cut; up and right is better. "
        "On a grey line F is the same, as the number at its end says. The dot is the best F at "
        "one threshold for all pictures"
    )
    if "saliency" in scores.of_task:
        caption += f"; for saliency, F weighs precision more (beta squared {BETA_SQUARED})"
    return save_figure(
        canvas, folder / "precision_recall.png", "Precision and recall", f"{caption}."
    )


def _curve(axes: Axes, name: str, scores: nn.Module) -> None:
    """Draw one task's curve, its best point, and lines of equal F."""
    if isinstance(scores, SaliencyScores):
        beta_squared = BETA_SQUARED
        recall, precision = scores.curves.recall, scores.curves.precision
        f = f_measure(precision, recall)
        at = int(f.argmax())
        best, point = float(f[at]), (recall[at], precision[at])
        label = f"max F {best:.3f} at {at / 255:.2f}"
    else:
        assert isinstance(scores, BoundaryScores)
        summary, levels = scores.summary, scores.protocol.levels
        assert summary is not None
        beta_squared = 1.0
        recall, precision = summary.recall, summary.precision
        at_best = [np.interp(summary.threshold, levels, v) for v in (recall, precision)]
        best, point = summary.ods, (at_best[0], at_best[1])
        label = f"ODS {best:.3f} at {summary.threshold:.2f}, OIS {summary.ois:.3f}"
    r = np.geomspace(0.01, 1, 300)
    for f_value in np.arange(1, 10) / 10:
        p = iso_f(r, f_value, beta_squared)
        axes.plot(r, p, color=LINE, linewidth=0.8, zorder=1)
        style: dict[str, Any] = {"va": "center", "fontsize": 7, "color": QUIET}
        style |= {"textcoords": "offset points", "annotation_clip": False}
        axes.annotate(f"{f_value:.1f}", (1, p[-1]), (3, 0), **style)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_box_aspect(1)
    axes.set_xlabel("recall", fontsize=9)
    axes.set_ylabel("precision", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if np.isnan(best):
        axes.set_title(f"{name}\nno score", fontsize=10, color=INK)
        return
    axes.set_title(f"{name}\n{label}", fontsize=10, color=INK)
    drawn = (recall > 0) | (precision > 0)  # elsewhere nothing is predicted, or nothing right
    marker = "." if len(recall) < 20 else ""
    axes.plot(recall[drawn], precision[drawn], color=ACCENT, linewidth=1.8, marker=marker)
    axes.plot(*point, "o", color=BAD, markersize=6, zorder=4, clip_on=False)


def iso_f(recall: NDArray[np.float64], f: float, beta_squared: float = 1.0) -> NDArray[np.float64]:
    """Return the precision that has a given F at each recall; nan where none in [0, 1] has.

    Args:
        recall: any shape, above 0.
        f: in (0, 1).
        beta_squared: how much more recall weighs in F.
    """
    below = (1 + beta_squared) * recall - beta_squared * f
    precision = f * recall / np.where(below > 0, below, np.nan)
    return np.asarray(np.where(precision <= 1, precision, np.nan))


def _selected(model: nn.Module) -> int | None:
    """Return how many levels a task selects; None: there is no selection."""
    found = [part.selected for part in model.modules() if isinstance(part, SelectiveIntegration)]
    return found[0] if found else None


def _gates(model: DFI, task: DenseTask, setup: DenseSetup) -> dict[str, Tensor]:
    """Return each task's gates over test pictures, [N, scales, levels]."""
    model.eval()
    pictures = setup.splits["test"]
    found: dict[str, list[Tensor]] = {name: [] for name in task.tasks}
    with torch.inference_mode():
        for index in spread(pictures.sizes, PICTURES_AVERAGED):
            x = _input(model, setup.preprocess(pictures.load(index)[0]))
            for name, gates in model.gates(x[None], task.tasks).items():
                found[name].append(gates.nan_to_num(0, 0, 0).float().cpu())
    return {name: torch.cat(gates) for name, gates in found.items()}


def draw_selections(
    gates: Mapping[str, Tensor], selected: int, strides: Sequence[int], folder: Path
) -> Figure:
    """Draw how much each task weighs each level on each scale, and how often it selects it.

    Args:
        gates: task → weights [N, scales, levels] of N pictures, each row's sum 1.
        selected: how many of a row are selected.
        strides: of the backbone's levels; one more is the pyramid's.
        folder: where ``selections.png`` goes.
    """
    count, scales, levels = next(iter(gates.values())).shape
    largest_mean = max(float(weights.mean(0).max()) for weights in gates.values())
    width = 0.52 * levels + 0.3
    canvas = Canvas(figsize=(width * len(gates) + 1.2, 0.84 * scales + 1.7), layout="constrained")
    cells = canvas.subplots(2, len(gates), squeeze=False, sharex=True, sharey=True)
    for column, (task, weights) in enumerate(gates.items()):
        chosen = largest(weights.flatten(0, 1), selected).view_as(weights) > 0
        tables = ((weights, max(largest_mean, 1e-6)), (chosen.float(), 1.0))
        for axes, (values, top) in zip(cells[:, column], tables, strict=True):
            draw_table(axes, values.mean(0).numpy(), top)
        cells[0, column].set_title(task, fontsize=10, color=INK)
        cells[1, column].set_xticks(range(levels), level_names(levels, strides))
        cells[1, column].set_xlabel("level", fontsize=9)
    for axes, what in zip(cells[:, 0], ("mean weight", "how often selected"), strict=True):
        axes.set_yticks(range(scales), scale_names(scales, strides))
        axes.set_ylabel(f"{what}\n\nscale", fontsize=9)
    caption = (
        f"Which of the backbone's levels (columns) each task uses on each scale (rows), over "
        f"{count} test pictures. Levels and scales are numbered from fine to coarse; below is "
        f"their size relative to the picture. Above: the mean weight of a level; a row sums to 1. "
        f"Below: the share of the pictures for which a level is among the {selected} with the "
        f"largest weights, which alone count."
    )
    return save_figure(canvas, folder / "selections.png", "What tasks select", caption)


def _input(model: nn.Module, x: Tensor) -> Tensor:
    parameter = next(model.parameters())
    return x.to(parameter.device, parameter.dtype)
