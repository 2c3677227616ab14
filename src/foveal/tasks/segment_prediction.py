"""What a network for pixels says about pictures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from foveal.config import SegmentConfig, TrainConfig
from foveal.data.label_pictures import overlay, palette_picture
from foveal.data.masks import IGNORED, LabelMap
from foveal.data.pictures import printable
from foveal.files import replacing
from foveal.tasks.prediction import Picture, Predictions, file_names, open_again
from foveal.tasks.report import write_legend
from foveal.tasks.segment import label_maps, window_of

TOLD = 3


@dataclass(frozen=True)
class SegmentPrediction:
    """What the network says about one picture.

    Attributes:
        path: the picture's path; empty for a picture given as an object.
        classes: names of all K classes.
        shares: (class, share of the pixels) of the classes found, the largest share first.
        png: the label map as a PNG with a palette, which is far smaller than the map itself.
    """

    path: str
    classes: tuple[str, ...] = field(repr=False)
    shares: tuple[tuple[str, float], ...]
    png: bytes = field(repr=False)
    _picture: Image.Image | None = field(default=None, repr=False, compare=False)  # has no path

    @property
    def labels(self) -> LabelMap:
        """Class index of each pixel, uint8 [H, W] at the picture's size; 255: no answer."""
        return np.array(Image.open(io.BytesIO(self.png)))

    @property
    def colors(self) -> NDArray[np.uint8]:
        """Colours of the classes, uint8 [K, 3]."""
        palette = Image.open(io.BytesIO(self.png)).getpalette()
        return np.array(palette, np.uint8).reshape(-1, 3)[: len(self.classes)]

    def __str__(self) -> str:
        told = ", ".join(f"{name} {share:.0%}" for name, share in self.shares[:TOLD])
        return f"{printable(self.path) or '(picture)'}: {told or '(none)'}"


class SegmentPredictions(Predictions):
    """What a network for pixels says about pictures.

    :meth:`save` writes label maps with a palette under ``masks/`` and the pictures tinted by them
    under ``overlays/``, both at the pictures' sizes, and what the colours mean, ``legend.png``.
    """

    HEADER: ClassVar = ("path", "mask", "overlay", "label", "share")
    OPENED: ClassVar = 8

    items: tuple[SegmentPrediction, ...]

    @staticmethod
    @torch.inference_mode()
    def items_of(
        model: nn.Module, config: TrainConfig, pictures: Sequence[Picture]
    ) -> list[SegmentPrediction]:
        """Return what a run's network says about some pictures."""
        assert isinstance(config, SegmentConfig)
        run: Any = model
        device = next(model.parameters()).device
        colors = np.array(run.colors, np.uint8)
        x = (run.preprocess(image).to(device) for _, image in pictures)
        maps = label_maps(model, x, config, window_of(config, run.preprocess))
        return [
            _prediction(picture, labels.cpu().numpy(), run.classes, colors)
            for picture, labels in zip(pictures, maps, strict=True)
        ]

    def draw(self, folder: Path) -> tuple[list[dict[str, Any]], list[Path]]:
        """Write label maps, overlays and the legend."""
        masks, overlays, key = folder / "masks", folder / "overlays", folder / "legend.png"
        rows = []
        for item, name in zip(self.items, file_names(self.items), strict=True):
            with replacing(masks / name) as file:
                file.write_bytes(item.png)
            tinted = self._draw_overlay(item, overlays / name)
            label, share = item.shares[0] if item.shares else ("", 0.0)
            rows.append(
                {
                    "path": printable(item.path),
                    "mask": f"masks/{name}",
                    "overlay": f"overlays/{name}" if tinted else "",
                    "label": label,
                    "share": share,
                    "shares": dict(item.shares),
                }
            )
        if not self.items:
            return rows, []
        first = self.items[0]
        write_legend(first.classes, first.colors, key)
        return rows, [masks, overlays, key]

    def _draw_overlay(self, item: SegmentPrediction, path: Path) -> bool:
        """Write a picture tinted by its label map; return whether the picture was still there."""
        image = open_again(item.path, item._picture)
        if image is None:
            return False
        with replacing(path) as file:
            overlay(image, item.labels, item.colors).save(file)
        return True


def _prediction(
    picture: Picture, found: NDArray[np.int64], classes: tuple[str, ...], colors: NDArray[np.uint8]
) -> SegmentPrediction:
    path, image = picture
    labels = np.where(found < 0, IGNORED, found).astype(np.uint8)
    counts = np.bincount(labels.ravel(), minlength=256)[: len(classes)]
    order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    stream = io.BytesIO()
    palette_picture(labels, colors).save(stream, "PNG")
    return SegmentPrediction(
        path,
        classes,
        tuple((classes[k], int(counts[k]) / labels.size) for k in order),
        stream.getvalue(),
        None if path else image,
    )
