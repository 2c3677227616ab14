"""What a network for salient objects, edges and skeletons says about pictures."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from foveal.config import DENSE_TASKS, DenseConfig, TrainConfig
from foveal.data.maps import FloatMap
from foveal.data.pictures import printable
from foveal.files import replacing
from foveal.names import unknown
from foveal.tasks.dense import maps_of
from foveal.tasks.map_pictures import MAP_COLORS, map_overlay, map_panels
from foveal.tasks.prediction import Picture, Predictions, file_names, open_again
from foveal.tasks.report import write_legend


@dataclass(frozen=True)
class DensePrediction:
    """What the network says about one picture.

    Attributes:
        path: the picture's path; empty for a picture given as an object.
        shares: task → share of the pixels whose value is at least one half; not a number where
            the network's output is none. A map of lines that is stretched says how certain a
            pixel is in comparison with the others of its picture.
        pngs: task → the map as a PNG of 8 or 16 bits, bright where the network is certain, which
            is far smaller than the map itself. What is not a number is 0 there.
    """

    path: str
    shares: Mapping[str, float]
    pngs: Mapping[str, bytes] = field(repr=False)
    _picture: Image.Image | None = field(default=None, repr=False, compare=False)  # has no path

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that there is a map for."""
        return tuple(self.pngs)

    def map(self, task: str) -> FloatMap:
        """Return a map at the picture's size, float32 [H, W] in [0, 1], in steps of its bits.

        Args:
            task: one of :attr:`tasks`.

        Raises:
            ValueError: there is no map of this task.
        """
        if task not in self.pngs:
            raise ValueError(unknown("task", task, self.pngs))
        with Image.open(io.BytesIO(self.pngs[task])) as stored:
            top = 255 if stored.mode == "L" else 65535
            return np.asarray(stored).astype(np.float32) / np.float32(top)

    def __str__(self) -> str:
        told = ", ".join(
            f"{task} not a number" if math.isnan(share) else f"{task} {share:.0%}"
            for task, share in self.shares.items()
        )
        return f"{printable(self.path) or '(picture)'}: {told}"


class DensePredictions(Predictions):
    """What a network for salient objects, edges and skeletons says about pictures.

    :meth:`save` writes a folder of maps for each task (``saliency/``, ``edge/``, ``skeleton/``),
    as ``foveal eval --predictions`` reads them; under ``overlays/`` the pictures with all of it
    drawn over them; under ``panels/`` each picture beside its maps; and which colour is what,
    ``legend.png``.
    """

    HEADER: ClassVar = (
        "path",
        *DENSE_TASKS,
        "overlay",
        "panel",
        *(f"{task}_share" for task in DENSE_TASKS),
    )
    OPENED: ClassVar = 4  # they may be large

    items: tuple[DensePrediction, ...]

    @staticmethod
    @torch.inference_mode()
    def items_of(
        model: nn.Module, config: TrainConfig, pictures: Sequence[Picture]
    ) -> list[DensePrediction]:
        """Return what a run's network says about some pictures."""
        assert isinstance(config, DenseConfig)
        run: Any = model
        device = next(model.parameters()).device
        x = (run.preprocess(image).to(device) for _, image in pictures)
        found = maps_of(model, x, config.tasks or run.classes, config)
        return [
            _prediction(
                picture, {t: m.cpu().numpy() for t, m in maps.items()}, config.inference.bits
            )
            for picture, maps in zip(pictures, found, strict=True)
        ]

    def draw(self, folder: Path) -> tuple[list[dict[str, Any]], list[Path]]:
        """Write maps, overlays, panels and the legend."""
        rows = []
        for item, name in zip(self.items, file_names(self.items), strict=True):
            for task, png in item.pngs.items():
                with replacing(folder / task / name) as file:
                    file.write_bytes(png)
            drawn = _draw_beside(item, folder, name)
            rows.append(
                {
                    "path": printable(item.path),
                    **{task: f"{task}/{name}" for task in item.tasks},
                    "overlay": f"overlays/{name}" if drawn else "",
                    "panel": f"panels/{name}" if drawn else "",
                    **{f"{task}_share": share for task, share in item.shares.items()},
                }
            )
        if not self.items:
            return rows, []
        tasks = self.items[0].tasks
        key = folder / "legend.png"
        write_legend(tasks, np.array([MAP_COLORS[task] for task in tasks], np.uint8), key)
        return rows, [*(folder / name for name in (*tasks, "overlays", "panels")), key]


def _draw_beside(item: DensePrediction, folder: Path, name: str) -> bool:
    """Write what shows picture and maps; return whether the picture was still there."""
    image = open_again(item.path, item._picture)
    if image is None:
        return False
    maps = {task: item.map(task) for task in item.tasks}
    for kind, picture in (("overlays", map_overlay), ("panels", map_panels)):
        with replacing(folder / kind / name) as file:
            picture(image, maps).save(file, "PNG")
    return True


def _prediction(picture: Picture, maps: Mapping[str, FloatMap], bits: int) -> DensePrediction:
    path, image = picture
    shares = {
        task: float(np.mean(values >= 0.5)) if np.isfinite(values).all() else math.nan
        for task, values in maps.items()
    }
    pngs = {task: _png(np.nan_to_num(values), bits) for task, values in maps.items()}
    return DensePrediction(path, shares, pngs, None if path else image)


def _png(values: FloatMap, bits: int) -> bytes:
    whole = np.rint(values.astype(np.float64) * (2**bits - 1))
    stream = io.BytesIO()
    Image.fromarray(whole.astype(np.uint8 if bits == 8 else np.uint16)).save(stream, "PNG")
    return stream.getvalue()
