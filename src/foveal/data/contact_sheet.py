"""A contact sheet: some pictures of a data set with their classes; of scenes, all labels."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from foveal.data.classification import ClassificationData
from foveal.data.dense import DenseData
from foveal.data.label_pictures import overlay
from foveal.data.palette import voc_palette
from foveal.data.parts import StoredPictures
from foveal.data.scenes import CLASSES, DOMAINS, Scene, ScenePictures, Scenes
from foveal.data.segmentation import SegmentationData

INK = "#1f2933"
COLUMNS, CELL = 8, 1.5  # pictures in a row; side of a cell, inches
_PALETTE = np.array(  # ten colours that are told apart, by class or by item
    [
        (31, 119, 180),
        (255, 127, 14),
        (44, 160, 44),
        (214, 39, 40),
        (148, 103, 189),
        (140, 86, 75),
        (227, 119, 194),
        (127, 127, 127),
        (188, 189, 34),
        (23, 190, 207),
    ],
    np.uint8,
)


def contact_sheet(
    data: ClassificationData, split: str = "train", *, count: int = 24, seed: int = 0
) -> Canvas:
    """Draw some pictures of a split with their classes; of scenes, all labels and domains too.

    Args:
        data: what :func:`foveal.data.read_classification` returned.
        split: ``train``, ``val`` or ``test``.
        count: number of pictures, drawn without repetition.
        seed: of that draw.

    Raises:
        ValueError: the split has no pictures, or ``count`` is below 1.
        DamagedPictureError: a picture will not open.
    """
    pictures = data.splits[split]
    chosen = draw_indices(data, split, count, seed)
    rows = -(-len(chosen) // COLUMNS)
    labelled: Sequence[Scene] = ()
    if isinstance(pictures, ScenePictures):
        labelled = [pictures.scenes[index] for index in chosen[:COLUMNS]]
    below = len(_LABELS) + len(DOMAINS) if labelled else 0
    height = rows * (CELL + 0.3) + below * CELL + 0.4
    canvas = Canvas(figsize=(COLUMNS * CELL + 0.9, height))
    _draw_pictures(canvas, pictures, data.classes, chosen, height)
    for column, scene in enumerate(labelled):
        _draw_labels(canvas, scene, column, (below * CELL) / height, below)
    return canvas


def draw_indices(
    data: ClassificationData | SegmentationData | DenseData, split: str, count: int, seed: int
) -> list[int]:
    """Return the indices of at most ``count`` pictures of a split, drawn without repetition.

    Raises:
        ValueError: as :func:`contact_sheet`.
    """
    size = len(data.splits[split])
    if count < 1:
        raise ValueError(f"a contact sheet needs at least one picture, not {count}")
    if not size:
        raise ValueError(f"{data.root}: split {split} has no pictures: {data.origins[split]}")
    order = np.argsort(np.random.default_rng(seed).random(size), kind="stable")
    return [int(index) for index in order[:count]]


def _draw_pictures(
    canvas: Canvas,
    pictures: StoredPictures,
    classes: Sequence[str],
    chosen: Sequence[int],
    height: float,
) -> None:
    for place, index in enumerate(chosen):
        row, column = divmod(place, COLUMNS)
        top = height - 0.2 - row * (CELL + 0.3)
        axes = cell(canvas, column, (top - CELL - 0.25) / height, CELL / height)
        axes.imshow(pictures.load(index))
        target = pictures.targets[index]
        shown = np.flatnonzero(target) if target.ndim else [target]
        names = [classes[int(k)] for k in shown]
        text = ", ".join(names) if names else "none"
        text = text if len(text) <= 24 else text[:23] + "…"
        axes.set_title(text, fontsize=7, color=INK, pad=3, parse_math=False)


def _draw_labels(canvas: Canvas, scene: Scene, column: int, top: float, rows: int) -> None:
    """Draw one scene's labels, then its domains, from the top down."""
    step = top / rows
    for row, (name, draw) in enumerate(_LABELS.items()):
        axes = cell(canvas, column, top - (row + 1) * step, step)
        draw(axes, scene)
        _name_row(axes, name, column)
    for row, domain in enumerate(DOMAINS, len(_LABELS)):
        axes = cell(canvas, column, top - (row + 1) * step, step)
        again = Scenes(scene.split, domain=domain, seed=scene.seed)[scene.index]
        axes.imshow(again.image)
        _name_row(axes, domain, column)


def cell(canvas: Canvas, column: int, bottom: float, height: float) -> Axes:
    """Return axes for a picture in a column; ``bottom`` and ``height`` are shares of the canvas."""
    width = COLUMNS * CELL + 0.9
    left, gap = (0.8 + column * CELL) / width, 0.02
    share = CELL / width
    axes = canvas.add_axes(
        (left + share * gap, bottom + height * gap, share * (1 - 2 * gap), height * (1 - 2 * gap))
    )
    axes.axis("off")
    return axes


def _name_row(axes: Axes, name: str, column: int) -> None:
    if column == 0:
        style: dict[str, Any] = {"ha": "right", "va": "center", "transform": axes.transAxes}
        axes.text(-0.06, 0.5, name, fontsize=7, color=INK, **style)


def _classes_and_items(axes: Axes, scene: Scene) -> None:
    axes.imshow(overlay(Image.fromarray(scene.image), scene.semantic, voc_palette(256)))
    for k, box in enumerate(scene.boxes):
        x, y = box[0] - 0.5, box[1] - 0.5
        axes.text(
            x,
            y,
            CLASSES[scene.item_categories[k]],
            fontsize=4.5,
            color="white",
            va="bottom",
            bbox={"facecolor": INK, "pad": 0.6, "linewidth": 0},
        )


def _items_and_boxes(axes: Axes, scene: Scene) -> None:
    axes.imshow(_tinted(scene, scene.instances))
    for k, (left, top, right, bottom) in enumerate(scene.boxes):
        colour = _PALETTE[k % len(_PALETTE)] / 255
        # imshow puts pixel 0 from -0.5 to 0.5; a box begins at its first pixel's edge.
        corner = left - 0.5, top - 0.5
        size = right - left, bottom - top
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=1))


def _salient(axes: Axes, scene: Scene) -> None:
    shade = np.where(scene.saliency, 255, 60).astype(np.uint16)[..., None]
    axes.imshow((scene.image * shade // 255).astype(np.uint8))


def _boundaries(axes: Axes, scene: Scene) -> None:
    axes.imshow(_painted(scene.image // 2, scene.boundaries, (255, 235, 60)))


def _skeleton(axes: Axes, scene: Scene) -> None:
    pale = (scene.image // 3).astype(np.uint8)
    pale[scene.instances > 0] += 85
    axes.imshow(_painted(pale, scene.skeleton, (255, 70, 70)))


_LABELS: dict[str, Callable[[Axes, Scene], None]] = {
    "semantic": _classes_and_items,
    "instances,\nboxes": _items_and_boxes,
    "saliency": _salient,
    "boundaries": _boundaries,
    "skeleton": _skeleton,
}


def _tinted(scene: Scene, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture with its labels' colours laid over it; where they are 0, darkened."""
    colours = np.concatenate([np.zeros((1, 3), np.uint8), _PALETTE])[labels].astype(np.uint16)
    mixed = (scene.image.astype(np.uint16) * 2 + colours * 3) // 5
    return mixed.astype(np.uint8)


def _painted(
    image: NDArray[np.uint8], lines: NDArray[np.uint8], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    painted = image.copy()
    painted[lines > 0] = colour
    return painted
