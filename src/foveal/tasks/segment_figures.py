"""The pictures of a segmentation run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foveal.data.label_pictures import legend, overlay
from foveal.data.masks import IGNORED, LabelMap
from foveal.metrics import class_iou, overlap
from foveal.tasks.confusion_figure import MOST_CLASSES_DRAWN, draw_confusion
from foveal.tasks.gate_figures import GATE_PICTURES, draw_gates
from foveal.tasks.report import ACCENT, BAD, INK, Figure, save_figure, short
from foveal.tasks.segment import SegmentSetup, SegmentTask, label_maps
from foveal.tasks.soft_labels_figure import draw_soft_labels

PICTURES_DRAWN = 8
MOST_IN_LEGEND = 24


def draw(task: SegmentTask, setup: SegmentSetup, folder: Path) -> list[Figure]:
    """Draw what a tested network does, and return the figures in the report's order."""
    confusion = task.scores.confusion
    figures = [
        _pictures(task, setup, folder),
        draw_class_bars(confusion, setup.classes, folder),
    ]
    if len(setup.classes) <= MOST_CLASSES_DRAWN:
        square = confusion[:, :-1]
        figures.append(draw_confusion(square, setup.classes, folder, shares=True))
    soft_labels = getattr(task.loss.main, "soft_labels", None)
    if isinstance(soft_labels, Tensor):
        figures.append(draw_soft_labels(soft_labels, setup.classes, folder))
    chosen = np.linspace(0, setup.size("test") - 1, min(setup.size("test"), GATE_PICTURES)).round()
    pictures = (setup.splits["test"].load(int(index))[0] for index in chosen)
    # What the network sees at a time.
    seen = (middle_window(picture, task.window) for picture in pictures)
    return figures + draw_gates(task.evaluated_model, setup.preprocess, seen, folder)


def _pictures(task: SegmentTask, setup: SegmentSetup, folder: Path) -> Figure:
    """Draw test pictures beside truth, prediction and mistakes."""
    size = setup.size("test")
    indices = np.linspace(0, size - 1, min(size, PICTURES_DRAWN)).round().astype(int)
    samples = [setup.splits["test"].load(int(index)) for index in indices]
    maps = _predicted(task, setup, [image for image, _ in samples])
    found = sorted({int(k) for _, truth in samples for k in np.unique(truth)} - {IGNORED})
    found = sorted({*found, *(int(k) for labels in maps for k in np.unique(labels))} - {IGNORED})
    heights = [min(image.height / image.width, 1.3) for image, _ in samples]
    canvas = Canvas(figsize=(9.6, 2.4 * sum(heights) + 0.8), layout="constrained")
    cells = canvas.subplots(len(samples), 4, squeeze=False, height_ratios=heights)
    for axes, title in zip(cells[0], ("picture", "truth", "prediction", "wrong"), strict=True):
        axes.set_title(title, fontsize=10, color=INK)
    for row, (image, truth), labels in zip(cells, samples, maps, strict=True):
        row[0].imshow(image)
        row[1].imshow(overlay(image, truth, setup.colors))
        row[2].imshow(overlay(image, labels, setup.colors))
        row[3].imshow(mistakes(truth, labels))
        for axes in row:
            axes.axis("off")
    named = found[:MOST_IN_LEGEND]
    canvas.legend(
        handles=legend([short(setup.classes[k], 18) for k in named], setup.colors[named]),
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=8,
    )
    caption = (
        "Test pictures, tinted by the true and by the predicted class of each pixel; in the last "
        "column wrong pixels are red, ignored ones grey."
    )
    if len(found) > len(named):
        caption += f" Named are {len(named)} of the {len(found)} classes shown."
    return save_figure(canvas, folder / "predictions.png", "Test pictures", caption)


def _predicted(
    task: SegmentTask, setup: SegmentSetup, images: Sequence[Image.Image]
) -> list[LabelMap]:
    model = task.evaluated_model.eval()
    parameter = next(model.parameters())
    x = (setup.preprocess(image).to(parameter.device, parameter.dtype) for image in images)
    maps = label_maps(model, x, task.config, task.window)
    return [torch.where(m < 0, IGNORED, m).to(torch.uint8).cpu().numpy() for m in maps]


def middle_window(image: Image.Image, side: int) -> Image.Image:
    """Return the middle of a picture, at most ``side`` x ``side`` pixels; 0: all of it."""
    if not side:
        return image
    width, height = min(side, image.width), min(side, image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def mistakes(truth: LabelMap, labels: LabelMap) -> NDArray[np.uint8]:
    """Return red where the prediction is wrong, grey where there is no truth, light elsewhere."""
    red = tuple(int(BAD[i : i + 2], 16) for i in (1, 3, 5))
    pixels = np.full((*truth.shape, 3), 235, np.uint8)
    pixels[truth != labels] = red
    pixels[truth == IGNORED] = 150
    return pixels


def draw_class_bars(confusion: Tensor, classes: Sequence[str], folder: Path) -> Figure:
    """Draw each class's intersection over union beside its share of the true pixels.

    Args:
        confusion: pixels of each true class by predicted class, int64 [K, K + 1].
        classes: K names.
        folder: where ``classes.png`` goes.
    """
    scores = class_iou(confusion)
    pixels = confusion.sum(1).double().numpy()
    shares = pixels / max(pixels.sum(), 1)
    known = [k for k, score in enumerate(scores) if not np.isnan(score)]
    order = sorted(known, key=lambda k: scores[k])  # the best is drawn on top
    canvas = Canvas(figsize=(7.5, 1.1 + 0.26 * max(len(order), 1)), layout="constrained")
    left, right = canvas.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    rows = range(len(order))
    left.barh(rows, [scores[k] for k in order], color=ACCENT, height=0.72)
    right.barh(rows, [shares[k] for k in order], color="#c3cad1", height=0.72)
    for row, k in zip(rows, order, strict=True):
        above_line = {"boxstyle": "square,pad=0.1", "facecolor": "white", "linewidth": 0}
        share = f"{100 * shares[k]:.2g} %" if pixels[k] else "never true"
        style: dict[str, Any] = {"va": "center", "fontsize": 8, "color": INK}
        style["textcoords"] = "offset points"
        left.annotate(f"{scores[k]:.3f}", (scores[k], row), (3, 0), bbox=above_line, **style)
        right.annotate(share, (shares[k], row), (3, 0), **style)
    names = [short(classes[k], 20) for k in order]
    left.set_yticks(rows, names, fontsize=8, parse_math=False)
    mean = overlap(confusion).miou
    if not np.isnan(mean):
        left.axvline(mean, color=INK, linewidth=1, linestyle="--")
        left.set_title(f"intersection over union, mean {mean:.3f}", fontsize=10)
    right.set_title("share of true pixels", fontsize=10)
    left.set_xlim(0, 1.12)
    right.set_xlim(0, 1.45 * max(shares.max(initial=0), 0.01))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    caption = "Each class over all test pixels, the best first; the dashed line is their mean."
    absent = [name for name, score in zip(classes, scores, strict=True) if np.isnan(score)]
    if absent:
        caption += (
            f" Neither in the test pictures nor predicted, so left out of the mean: "
            f"{', '.join(absent)}."
        )
    return save_figure(canvas, folder / "classes.png", "Classes", caption)
