"""The pictures of a run from image labels."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from foveal.data.label_pictures import legend, overlay
from foveal.data.masks import IGNORED
from foveal.data.weak import WeakData
from foveal.mining.pseudo_labels import of_picture
from foveal.tasks.report import ACCENT, BAD, INK, Figure, save_figure, short
from foveal.tasks.weak_labels import SHEET
from foveal.tasks.weak_mining import Mined, MinedSplit
from foveal.tasks.weak_scores import SIZES

PICTURES_DRAWN = 6
MOST_IN_LEGEND = 24
_FROM_NETWORK = {
    "curves.png": (
        "Training of the segmentation network",
        "Left: loss (the training loss includes augmentation). Right: validation scores.",
    ),
    "predictions.png": (
        "What the network says of test pictures",
        "Test pictures, tinted by the class of each pixel in the masks that they are scored by, "
        "and in the prediction; in the last column wrong pixels are red, ignored ones grey.",
    ),
    "classes.png": ("Classes", "Each class over all test pixels, the best first."),
}


def draw_figures(
    data: WeakData,
    mined: Mapping[str, MinedSplit],
    tables: Mapping[str, Any],
    labels: Path,
    network: Path,
    folder: Path,
) -> list[Figure]:
    """Draw what was mined and how good it is, and take over the network's figures.

    Args:
        data: the pictures.
        mined: what was mined in each split.
        tables: scores of the splits with masks.
        labels: folder of the pseudo labels.
        network: run folder of the network.
        folder: where the figures go.

    Returns:
        The figures in the report's order.
    """
    figures = [_take(network / "figures" / "predictions.png", folder, "predictions.png")]
    shown = next((name for name in ("test", "val") if name in tables and name in mined), "train")
    figures.append(draw_steps(data, mined, shown, folder))
    if tables:
        figures.append(
            draw_curves({name: tables[name] for name in mined if name in tables}, folder)
        )
    if shown in tables:
        figures.append(draw_sizes(tables[shown], shown, folder))
    shutil.copyfile(labels / SHEET, folder / "labels.png")
    figures.append(
        Figure(
            folder / "labels.png",
            "Pseudo labels",
            "Training pictures beside themselves with their pseudo labels laid over; what is "
            "ignored is pale.",
        )
    )
    figures += [_take(network / "figures" / name, folder, name) for name in list(_FROM_NETWORK)]
    seen: dict[Path, Figure] = {figure.path: figure for figure in figures}
    return list(seen.values())


def _take(source: Path, folder: Path, name: str) -> Figure:
    shutil.copyfile(source, folder / name)
    return Figure(folder / name, *_FROM_NETWORK[name])


def draw_steps(data: WeakData, mined: Mapping[str, MinedSplit], split: str, folder: Path) -> Figure:
    """Draw pictures with the step at which each pixel was mined, beside labels and truth.

    Args:
        data: the pictures.
        mined: what was mined in them.
        split: whose pictures.
        folder: where ``mining.png`` goes.
    """
    pictures = data.splits[split]
    chosen = _chosen(mined[split])
    truths = [pictures.truth(one.index) for one in chosen]
    columns = 4 if any(truth is not None for truth in truths) else 3
    height = max(2.3 * len(chosen), 1) + 0.9
    canvas = Canvas(figsize=(2.4 * columns + 0.6, height), layout="constrained")
    cells = canvas.subplots(max(len(chosen), 1), columns, squeeze=False)
    for axes, title in zip(
        cells[0], ("picture", "step", "mined classes", "truth")[:columns], strict=True
    ):
        axes.set_title(title, fontsize=10, color=INK)
    for axes in cells.flat:
        axes.axis("off")
    most = max((int(one.result.step_map.max()) for one in chosen if len(one.cams)), default=1)
    colors = _step_colors(max(most, 1))
    shown: set[int] = set()
    for row, one, truth in zip(cells, chosen, truths, strict=False):
        image = pictures.load(one.index)
        found = of_picture(one.result, one.number, (image.height, image.width))
        labels = found.to_label_map()[0].to(torch.uint8).numpy()
        row[0].imshow(image)
        row[1].imshow(overlay(image, _first_steps(found.step_map), _with_nothing(colors)))
        row[2].imshow(overlay(image, labels, data.colors))
        if truth is not None:
            row[3].imshow(overlay(image, truth, data.colors))
        maps = (labels,) if truth is None else (labels, truth)
        shown |= {int(k) for map_ in maps for k in np.unique(map_)} - {IGNORED}
    norm = BoundaryNorm(np.arange(0.5, len(colors) + 1), len(colors))
    bar = canvas.colorbar(
        _scale(colors, norm), ax=cells.ravel().tolist(), location="bottom", shrink=0.4, aspect=30
    )
    bar.set_label("step", fontsize=8)
    bar.set_ticks(range(1, len(colors) + 1))
    bar.ax.tick_params(labelsize=7)
    named = sorted(shown)[:MOST_IN_LEGEND]
    canvas.legend(
        handles=legend([short(data.classes[k], 18) for k in named], data.colors[named]),
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=8,
    )
    caption = (
        f"Pictures of {split}: the step at which each pixel was mined, of several classes the "
        "earliest; the classes that were mined; and the true ones, where there are masks."
    )
    return save_figure(canvas, folder / "mining.png", "What was mined", caption)


def _chosen(split: MinedSplit) -> list[Mined]:
    """Return some pictures with classes, evenly from the first to the last."""
    wanted = set(
        np.linspace(0, split.pictures - 1, min(2 * PICTURES_DRAWN, split.pictures))
        .round()
        .astype(int)
        .tolist()
    )
    found = [one for one in split if one.index in wanted and len(one.cams)]
    return found[:PICTURES_DRAWN]


def _first_steps(step_map: torch.Tensor) -> NDArray[np.uint8]:
    """Return the earliest step of any class in each pixel, uint8 [H, W]; 0: none."""
    never = torch.where(step_map == 0, 255, step_map)
    first = never.amin(0)
    return torch.where(first == 255, 0, first).to(torch.uint8).numpy()


def _step_colors(count: int) -> NDArray[np.uint8]:
    """Return a colour for each step, uint8 [count, 3]."""
    from matplotlib import colormaps

    shades = colormaps["plasma"](np.linspace(0.95, 0.15, count) if count > 1 else [0.8])
    return np.asarray(np.rint(255 * shades[:, :3]).astype(np.uint8))


def _with_nothing(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the colours with black, which leaves a picture as it is, for step 0."""
    return np.concatenate([np.zeros((1, 3), np.uint8), colors])


def _scale(colors: NDArray[np.uint8], norm: BoundaryNorm) -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm, ListedColormap(colors / 255))


def draw_curves(tables: Mapping[str, Any], folder: Path) -> Figure:
    """Draw mean intersection over union against the threshold and against the step."""
    canvas = Canvas(figsize=(9, 3.2), layout="constrained")
    left, right = canvas.subplots(1, 2, sharey=True)
    for split, own in tables.items():
        curves = own["curves"]
        values = [np.nan if v is None else v for v in curves["seed_miou"]]
        left.plot(curves["threshold"], values, marker="o", markersize=3, label=split)
        values = [np.nan if v is None else v for v in curves["mined_miou"]]
        steps = range(1, len(values) + 1)
        right.plot(steps, values, marker="o", markersize=3, label=split)
    left.set_xlabel("threshold of the class activation maps")
    right.set_xlabel("mining steps")
    right.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    left.set_ylabel("mean intersection over union", fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    caption = (
        "Left: class activation maps alone, cut at a threshold. Right: what was mined in so many "
        "first steps; a pair that stopped earlier stays as it is."
    )
    return save_figure(canvas, folder / "mining_curves.png", "Threshold and steps", caption)


def draw_sizes(own: Mapping[str, Any], split: str, folder: Path) -> Figure:
    """Draw scores and steps of small, medium and large objects."""
    sizes = own["sizes"]
    canvas = Canvas(figsize=(9, 2.9), layout="constrained")
    left, right = canvas.subplots(1, 2, width_ratios=(3, 2))
    places = np.arange(len(SIZES))
    for shift, key, label, color in (
        (-0.2, "seed_iou", "class activation map, best threshold", BAD),
        (0.2, "mined_iou", "mined", ACCENT),
    ):
        values = [np.nan if (v := sizes[key][size]) is None else v for size in SIZES]
        bars = left.bar(places + shift, np.nan_to_num(values), 0.38, label=label, color=color)
        left.bar_label(bars, [f"{v:.3f}" for v in values], fontsize=8, padding=1)
    steps = [np.nan if (v := sizes["steps"][size]) is None else v for size in SIZES]
    areas = [np.nan if (v := sizes["area"][size]) is None else v for size in SIZES]
    bars = right.bar(places, np.nan_to_num(steps), 0.5, color=ACCENT)
    right.bar_label(bars, [f"{v:.2f}" for v in steps], fontsize=8, padding=1)
    left.set_title("intersection over union of objects", fontsize=10)
    right.set_title("steps", fontsize=10)
    names = [f"{size}\n{area:,.0f} pixels" for size, area in zip(SIZES, areas, strict=True)]
    for axes in (left, right):
        axes.set_xticks(places, names, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(y=0.2)
    left.legend(frameon=False, fontsize=8)
    caption = (
        f"Classes in pictures of {split}, in thirds by their true areas (means below the bars). "
        "One for which nothing was mined counts with 0."
    )
    return save_figure(canvas, folder / "object_sizes.png", "Small and large objects", caption)
