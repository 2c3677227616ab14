"""Saliency maps of the pictures that get pseudo labels: from files, or from a dense run of ours."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from foveal.config import DenseConfig, WeakConfig, task_of
from foveal.data.pictures import DamagedPictureError, printable
from foveal.data.prediction_maps import find_prediction_maps, read_prediction_map
from foveal.data.weak import WeakData
from foveal.tasks.dense import maps_of
from foveal.tasks.run import CONFIG, load, read_config
from foveal.tasks.weak_mining import MinedSplit

Saliency = Callable[[Image.Image, str], NDArray[np.float32]]
"""Picture and its name -> map [H, W] in [0, 1]."""


def open_saliency(
    config: WeakConfig, data: WeakData, mined: Mapping[str, MinedSplit]
) -> Saliency | None:
    """Return what tells the saliency of pictures; None where it is not asked for.

    Args:
        config: the run; ``pseudo.saliency`` is a run folder of ours, or a folder of maps.
        data: its pictures; those of splits with true masks get no pseudo labels.
        mined: how many of each split are mined.

    Raises:
        ValueError: a run that has not learned saliency, no such folder, or a picture without a map.
    """
    if config.pseudo.saliency is None:
        return None
    folder = Path(config.pseudo.saliency)
    if (folder / CONFIG).is_file():
        return _of_run(folder, config)
    if not folder.is_dir():
        raise ValueError(f"pseudo.saliency {folder}: there is no such folder")
    names = [
        data.splits[name].name(index)
        for name, split in mined.items()
        if name not in data.held_out
        for index in range(split.pictures)
    ]
    paths = dict(zip(names, find_prediction_maps(folder, names), strict=True))
    return lambda image, name: _read(paths[name], image, name)


def _of_run(folder: Path, config: WeakConfig) -> Saliency:
    run = read_config(folder)
    if not isinstance(run, DenseConfig):
        raise ValueError(
            f"pseudo.saliency {folder}: is a run of {task_of(run)}, where one of dense is expected"
        )
    model: Any = load(folder)
    if "saliency" not in model.classes:
        raise ValueError(
            f"pseudo.saliency {folder}: has learned {' and '.join(model.classes)}, not saliency"
        )
    if config.device != "cpu" and torch.cuda.is_available():
        model.to("cuda")
    device = next(model.parameters()).device

    @torch.inference_mode()
    def look(image: Image.Image, name: str) -> NDArray[np.float32]:
        maps = next(maps_of(model, [model.preprocess(image).to(device)], ["saliency"], run))
        return maps["saliency"].float().cpu().numpy()

    return look


def _read(path: Path, image: Image.Image, name: str) -> NDArray[np.float32]:
    values = read_prediction_map(path)
    if values.shape != (image.height, image.width):
        raise DamagedPictureError(
            path,
            f"{values.shape[1]} by {values.shape[0]} pixels, but its picture {printable(name)} has "
            f"{image.width} by {image.height}",
        )
    top = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    return (values.astype(np.float32) / np.float32(top)).astype(np.float32)
