"""Explanations of a run's network, drawn over the pictures and as data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas

from foveal.data.pictures import printable
from foveal.explanation import (
    Explanation,
    Gates,
    attention_collapse,
    gate_arrays,
    read_gates,
)
from foveal.files import replacing
from foveal.tasks.collapse_figure import draw_collapse
from foveal.tasks.gate_figures import choices_canvas, draw_gates, draw_over
from foveal.tasks.prediction import Picture
from foveal.tasks.report import INK, short, write_canvas
from foveal.tasks.run import write_json

COLUMNS = 4
DRAWN, GATES_DRAWN = 64, 8  # explanations in one figure; pictures in one of gates


def save_explanations(
    found: Sequence[Explanation],
    pictures: Sequence[Picture],
    classes: Sequence[str],
    folder: Path,
) -> list[Path]:
    """Write ``explanations.json``, ``explanations.npz`` and ``explanations.png``.

    Args:
        found: as many for each picture, picture by picture.
        pictures: (path or "", picture) each.
        classes: names of the classes; empty where there are none.
        folder: where the files go.

    Returns:
        The paths.
    """
    each = len(found) // max(len(pictures), 1)
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for number, one in enumerate(found):
        path, _ = pictures[number // each]
        key = f"{number // each:05d}_{Path(path).stem}"
        key += "" if one.target is None else f"_{one.target}"
        arrays[key] = one.map.numpy()
        rows.append(
            {
                "path": printable(path),
                "method": one.method,
                "layer": one.layer,
                "target": one.target,
                "class": "" if one.target is None or not classes else classes[one.target],
                "score": one.score,
                "array": key,
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"explanations.{kind}" for kind in ("json", "npz", "png")]
    write_json(files[0], rows)
    with replacing(files[1]) as file, file.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    write_canvas(_canvas(found[:DRAWN], pictures, each, classes), files[2])
    return files


def _canvas(
    found: Sequence[Explanation], pictures: Sequence[Picture], each: int, classes: Sequence[str]
) -> Canvas:
    """Return pictures beside the maps over them, some pairs in a row."""
    panels = max(each, 1) + 1
    shown = -(-len(found) // max(each, 1))
    across = max(1, COLUMNS * 2 // panels)
    rows = -(-shown // across)
    canvas = Canvas(figsize=(1.9 * panels * across, 2.2 * rows), layout="constrained")
    cells = canvas.subplots(rows, panels * across, squeeze=False)
    for axes in cells.flatten():
        axes.axis("off")
    for number in range(shown):
        row = cells[number // across][panels * (number % across) :]
        picture = np.asarray(pictures[number][1].convert("RGB"), np.float32) / 255
        row[0].imshow(picture)
        path = Path(pictures[number][0]).stem
        row[0].set_title(short(path, 18), fontsize=7, color=INK, parse_math=False)
        for axes, one in zip(row[1:panels], found[number * each :], strict=False):
            axes.axis("on")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            draw_over(axes, picture, one.map)
            axes.set_title(_told(one, classes), fontsize=7, color=INK, parse_math=False)
    return canvas


def _told(one: Explanation, classes: Sequence[str]) -> str:
    if one.target is None:
        return one.method
    name = short(classes[one.target], 18) if classes else f"class {one.target}"
    return f"{name}, {one.method}"


def save_gates(model: Any, pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """Write the gates of all layers: ``gates.npz`` and the figures of them.

    Raises:
        ValueError: the network has no gates.
    """
    parameter = next(model.parameters())
    arrays: dict[str, Any] = {}
    shown: list[Any] = []
    choices: list[list[Gates]] = []
    for number, (_, image) in enumerate(pictures):
        x = model.preprocess(image)
        gates = read_gates(model, x[None].to(parameter.device, parameter.dtype))
        arrays |= {f"{number:05d}/{key}": value for key, value in gate_arrays(gates).items()}
        if len(shown) < GATES_DRAWN:
            shown.append(model.preprocess.picture(x).permute(1, 2, 0).numpy())
            choices.append([one for one in gates if one.kind == "selection"])
    if not arrays:
        raise ValueError(
            f"{type(model).__name__} has no gates: no layer of coordinate, triplet or strip "
            "attention, squeeze-and-excitation, CBAM or re-attention"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "gates.npz") as file, file.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    drawn = draw_gates(
        model, model.preprocess, [image for _, image in pictures[:GATES_DRAWN]], folder
    )
    written = [folder / "gates.npz", *(figure.path for figure in drawn)]
    if choices[0]:
        strides = model.backbone.feature_info.reduction() if hasattr(model, "backbone") else None
        written.append(folder / "choices.png")
        write_canvas(choices_canvas(shown, choices, strides), written[-1])
    return written


def save_collapse(model: Any, pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """Write how alike the blocks of a vision transformer are: ``collapse.npz`` and ``.png``."""
    parameter = next(model.parameters())
    batches = (
        model.preprocess(image)[None].to(parameter.device, parameter.dtype) for _, image in pictures
    )
    found = attention_collapse(model, batches)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "collapse.npz") as file, file.open("wb") as stream:
        values: dict[str, Any] = {
            k: v.numpy() for k, v in vars(found).items() if isinstance(v, torch.Tensor)
        }
        np.savez_compressed(stream, layers=np.array(found.layers), **values)
    return [folder / "collapse.npz", draw_collapse(found, folder).path]
