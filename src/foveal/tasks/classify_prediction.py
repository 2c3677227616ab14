"""What a classifier says about pictures."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure as Canvas
from PIL import Image
from torch import nn

from foveal.config import ClassifyConfig, TrainConfig
from foveal.data.pictures import DamagedPictureError, open_picture, printable
from foveal.tasks.prediction import Picture, Predictions
from foveal.tasks.report import INK, write_canvas

_logger = logging.getLogger(__name__)

PER_SHEET, TOP = 40, 5


@dataclass(frozen=True)
class Prediction:
    """What the network says about one picture.

    Attributes:
        path: the picture's path; empty for a picture given as an object.
        label: the most probable class; for several labels per picture, those above 0.5, joined
            by ``;`` (empty: none).
        probability: probability of the most probable class, in [0, 1].
        top: up to five (class, probability) pairs, the most probable first.
    """

    path: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    _thumbnail: Image.Image | None = field(default=None, repr=False, compare=False)  # no path

    def __str__(self) -> str:
        where = printable(self.path) or "(picture)"
        return f"{where}: {self.label or '(none)'} {self.probability:.0%}"


class ClassPredictions(Predictions):
    """What a classifier says about pictures; :meth:`save` writes contact sheets."""

    HEADER: ClassVar = ("path", "label", "probability")
    OPENED: ClassVar = 64  # they form one batch

    items: tuple[Prediction, ...]

    @staticmethod
    @torch.inference_mode()
    def items_of(
        model: nn.Module, config: TrainConfig, pictures: Sequence[Picture]
    ) -> list[Prediction]:
        """Return what a run's network says about some pictures."""
        assert isinstance(config, ClassifyConfig)
        classes: tuple[str, ...] = model.classes  # type: ignore[assignment]
        x = torch.stack([model.preprocess(image) for _, image in pictures])  # type: ignore[operator]
        logits = model(x.to(next(model.parameters()).device)).double().cpu()
        probabilities = logits.sigmoid() if config.multi_label else logits.softmax(1)
        values, indices = probabilities.topk(min(TOP, len(classes)), 1)
        result: list[Prediction] = []
        for (path, image), p, k in zip(pictures, values.tolist(), indices.tolist(), strict=True):
            top = tuple((classes[i], v) for i, v in zip(k, p, strict=True))
            label = top[0][0]
            if config.multi_label:
                row = probabilities[len(result)]
                label = ";".join(classes[int(i)] for i in (row > 0.5).nonzero()[:, 0])
            thumbnail = None if path else _shrink(image)
            result.append(Prediction(path, label, top[0][1], top, thumbnail))
        return result

    def draw(self, folder: Path) -> tuple[list[dict[str, Any]], list[Path]]:
        """Write contact sheets."""
        rows = [
            {
                "path": printable(item.path),
                "label": item.label,
                "probability": item.probability,
                "top": [{"label": name, "probability": p} for name, p in item.top],
            }
            for item in self.items
        ]
        written = []
        items = iter(self.items)
        every_letter = True
        for page, sheet in enumerate(iter(lambda: list(islice(items, PER_SHEET)), []), 1):
            path = folder / f"predictions_{page:03d}.png"
            every_letter &= write_canvas(_sheet(sheet), path)
            written.append(path)
        if not every_letter:
            _logger.warning(
                "%s: the sheets' font lacks letters of some names: boxes stand there", folder
            )
        return rows, written


def _shrink(image: Image.Image) -> Image.Image:
    image.thumbnail((160, 160))
    return image


def _sheet(items: Sequence[Prediction]) -> Canvas:
    """Return thumbnails with what the network says above each, and the file's name below."""
    columns = min(8, len(items))
    rows = -(-len(items) // columns)
    canvas = Canvas(figsize=(columns * 1.5, rows * 1.85), layout="constrained")
    cells = canvas.subplots(rows, columns, squeeze=False).flatten()
    for axes in cells:
        axes.axis("off")
    for axes, item in zip(cells, items, strict=False):
        style: dict[str, Any] = {"parse_math": False}  # a name may hold dollar signs
        below: dict[str, Any] = {"ha": "center", "va": "top", "transform": axes.transAxes, **style}
        try:
            axes.imshow(item._thumbnail or _shrink(open_picture(item.path)))
        except DamagedPictureError:
            axes.text(0.5, 0.5, "will not open\nany more", fontsize=6, **below)
        title = f"{item.label[:18]}\n{item.probability:.0%}"
        axes.set_title(title, fontsize=8, color=INK, **style)
        axes.text(0.5, -0.04, printable(Path(item.path).name)[-22:], fontsize=6, **below)
    return canvas
