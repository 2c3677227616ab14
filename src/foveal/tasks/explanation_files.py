"""``foveal explain``: explanations of a run's network, drawn over the pictures and as data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from PIL import Image

from foveal.data.pictures import printable
from foveal.explanation import (
    Explanation,
    Gates,
    attention_collapse,
    deletion_insertion,
    gate_arrays,
    read_gates,
)
from foveal.explanation.deletion_insertion import Score
from foveal.files import replacing
from foveal.tasks.collapse_figure import draw_collapse
from foveal.tasks.explaining import (
    Device,
    Target,
    check_has_classes,
    explained_batches,
    listed,
    network_of,
)
from foveal.tasks.gate_figures import (
    choices_canvas,
    draw_bar,
    draw_gates,
    draw_over,
    shape_of,
)
from foveal.tasks.prediction import Source, open_source
from foveal.tasks.report import INK, short, write_canvas
from foveal.tasks.run import Run, read_config, run_folder, write_json

COLUMNS = 4
DRAWN, GATES_DRAWN = 64, 8  # explanations in one figure; pictures in one of gates
DRAWN_SIDE = 480  # pixels of a picture in a figure, at most


def explain_files(
    run: str | Path | Run,
    images: Source | Iterable[Source],
    out: Path,
    *,
    method: str = "gradcam",
    target: Target = None,
    device: Device = "auto",
    faithfulness: bool = False,
    **options: Any,
) -> list[Path]:
    """Write explanations of pictures as figures and data, and return the paths.

    Args:
        run: as of :func:`foveal.explain`.
        images: likewise, without tensors.
        out: the folder.
        method: likewise; also ``collapse``, of a vision transformer over all pictures.
        target: as of :func:`foveal.explain`; several words or numbers are classes for all pictures.
        device: as of :func:`foveal.explain`.
        faithfulness: also score each map by deletion and insertion.
        **options: of the method, such as ``layer``.

    Raises:
        ValueError: as of :func:`foveal.explain`; something that the method does not have.
        TypeError: an option that the method does not have.
    """
    if method in _OF_LAYERS:
        given = {"target": target is not None, "faithfulness": faithfulness}
        for name in (*options, *(name for name, is_given in given.items() if is_given)):
            raise ValueError(f"{method} is the same for all classes and layers: leave {name} out")
    else:
        check_has_classes(run)
    model: Any = network_of(run, device)
    sources = listed(images)
    if method in _OF_LAYERS:
        return _OF_LAYERS[method](model, sources, out)
    if isinstance(target, list):
        target = [target] * len(sources)
    config = read_config(run_folder(run.path if isinstance(run, Run) else run))
    score: Score = "sigmoid" if getattr(config, "multi_label", False) else "softmax"
    explained: list[_Explained] = []
    for batch in explained_batches(model, sources, method, target, **options):
        scores = _faithfulness(model, batch.x, batch.found, score) if faithfulness else None
        for k, (path, picture) in enumerate(batch.pictures):
            found = batch.placed[k]
            own = scores[k * len(found) : (k + 1) * len(found)] if scores else None
            drawn = len(explained) < _pictures_drawn(len(found))
            explained.append(_Explained(path, _small(picture) if drawn else None, found, own))
    return _save_explanations(explained, model.classes, out)


@dataclass(frozen=True)
class _Explained:
    """The explanations of a picture, and how each one fares in deletion and insertion.

    The picture is kept, small, only where it is drawn.
    """

    path: str
    picture: Image.Image | None
    found: Sequence[Explanation]
    scores: Sequence[tuple[float, float]] | None


def _pictures_drawn(each: int) -> int:
    """Return how many pictures one figure shows, with so many explanations each."""
    return max(DRAWN // max(each, 1), 1)


def _small(picture: Image.Image) -> Image.Image:
    """Return a copy as large as a figure can show."""
    copy = picture.convert("RGB")
    copy.thumbnail((DRAWN_SIDE, DRAWN_SIDE))
    return copy


def _faithfulness(
    model: Any, x: torch.Tensor, found: Sequence[Explanation], score: Score
) -> list[tuple[float, float]]:
    """Return deletion and insertion of each map, for the class that it explains."""
    each = len(found) // len(x)
    maps = torch.stack([one.map for one in found])
    classes = [one.target for one in found if one.target is not None]
    targets = classes or None  # attention knows no classes: the predicted one
    result = deletion_insertion(model, x.repeat_interleave(each, 0), maps, targets, score=score)
    return list(zip(result.deletion.tolist(), result.insertion.tolist(), strict=True))


def _save_explanations(
    explained: Sequence[_Explained], classes: Sequence[str], folder: Path
) -> list[Path]:
    """Write ``explanations.json``, ``explanations.npz`` and ``explanations.png``.

    Args:
        explained: pictures, each with as many explanations.
        classes: names of the classes; empty where there are none.
        folder: where the files go.

    Returns:
        The paths.
    """
    rows: list[dict[str, Any]] = []
    named: dict[str, Explanation] = {}
    for number, picture in enumerate(explained):
        for k, one in enumerate(picture.found):
            key = f"{number:05d}_{printable(Path(picture.path).stem)}"
            key += "" if one.target is None else f"_{one.target}"
            named[key] = one
            row = {
                "path": printable(picture.path),
                "method": one.method,
                "layer": one.layer,
                "target": one.target,
                "class": "" if one.target is None or not classes else classes[one.target],
                "score": one.score,
                "array": key,
            }
            if picture.scores is not None:
                row |= dict(zip(("deletion", "insertion"), picture.scores[k], strict=True))
            rows.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"explanations.{kind}" for kind in ("json", "npz", "png")]
    write_json(files[0], rows)
    # As numpy.savez_compressed does it, which wants all arrays at once; maps are large.
    with replacing(files[1]) as file, ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for key, one in named.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, one.map.numpy(), allow_pickle=False)
    write_canvas(_canvas([one for one in explained if one.picture is not None], classes), files[2])
    return files


def _canvas(explained: Sequence[_Explained], classes: Sequence[str]) -> Canvas:
    """Return pictures beside the maps over them, some pairs in a row."""
    panels = max(len(one.found) for one in explained) + 1
    across = min(max(1, COLUMNS * 2 // panels), len(explained))
    rows = -(-len(explained) // across)
    sizes = [one.found[0].size for one in explained]
    heights = [
        max(shape_of(*size) for size in sizes[k : k + across])
        for k in range(0, len(explained), across)
    ]
    text = 0.55 if explained[0].scores is None else 0.7  # above and below a map, inches
    size = (1.9 * panels * across, 1.9 * sum(heights) + text * rows + 0.4)
    canvas = Canvas(figsize=size, layout="constrained")
    cells = canvas.subplots(rows, panels * across, squeeze=False, height_ratios=heights)
    for axes in cells.flatten():
        axes.axis("off")
    style: dict[str, Any] = {"fontsize": 7, "color": INK, "parse_math": False}
    for number, one in enumerate(explained):
        row = cells[number // across][panels * (number % across) :]
        picture = np.asarray(one.picture, np.float32) / 255
        row[0].imshow(picture)
        row[0].set_title(short(printable(Path(one.path).stem), 18), **style)
        for k, (axes, found) in enumerate(zip(row[1:panels], one.found, strict=False)):
            axes.axis("on")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            draw_over(axes, picture, found.map)
            title = _told(found, classes)
            if one.scores is not None:
                title += "\ndeletion {:.2f}, insertion {:.2f}".format(*one.scores[k])
            axes.set_title(title, **style)
    draw_bar(canvas, cells)
    return canvas


def _told(one: Explanation, classes: Sequence[str]) -> str:
    if one.target is None:
        return one.method
    name = short(classes[one.target], 18) if classes else f"class {one.target}"
    return f"{name}, {one.method}"


def save_gates(model: Any, sources: Sequence[Source], folder: Path) -> list[Path]:
    """Write the gates of all layers: ``gates.npz`` and the figures of them.

    Raises:
        ValueError: the network has no gates.
    """
    parameter = next(model.parameters())
    arrays: dict[str, Any] = {}
    shown: list[Any] = []
    choices: list[list[Gates]] = []
    for number, source in enumerate(sources):
        x = model.preprocess(open_source(source)[1])
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
    images = (open_source(source)[1] for source in sources[:GATES_DRAWN])
    drawn = draw_gates(model, model.preprocess, images, folder)
    written = [folder / "gates.npz", *(figure.path for figure in drawn)]
    if choices[0]:
        strides = model.backbone.feature_info.reduction() if hasattr(model, "backbone") else None
        written.append(folder / "choices.png")
        write_canvas(choices_canvas(shown, choices, strides), written[-1])
    return written


def save_collapse(model: Any, sources: Sequence[Source], folder: Path) -> list[Path]:
    """Write how alike the blocks of a vision transformer are: ``collapse.npz`` and ``.png``."""
    parameter = next(model.parameters())
    batches = (
        model.preprocess(open_source(source)[1])[None].to(parameter.device, parameter.dtype)
        for source in sources
    )
    found = attention_collapse(model, batches)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "collapse.npz") as file, file.open("wb") as stream:
        values: dict[str, Any] = {
            k: v.numpy() for k, v in vars(found).items() if isinstance(v, torch.Tensor)
        }
        np.savez_compressed(stream, layers=np.array(found.layers), **values)
    return [folder / "collapse.npz", draw_collapse(found, folder).path]


# What is of all layers, and so neither of a class nor of a layer.
_OF_LAYERS = {"gates": save_gates, "collapse": save_collapse}
