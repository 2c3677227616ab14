"""``foveal.predict``: what a trained network says about pictures."""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure as Canvas
from PIL import Image
from torch import nn

from foveal.data.pictures import (
    DamagedPictureError,
    is_picture_name,
    open_picture,
    printable,
    upright_rgb,
    walk,
)
from foveal.tasks.report import INK, write_canvas
from foveal.tasks.run import Run, load, read_config, run_folder, write_json, write_text

_logger = logging.getLogger(__name__)

Source = str | Path | Image.Image
BATCH_SIZE, PER_SHEET, TOP = 64, 40, 5


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


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """Predictions in the order of the pictures.

    Attributes:
        items: one per picture that opened.
        damaged: one complaint for each picture that did not.
    """

    items: tuple[Prediction, ...]
    damaged: tuple[str, ...] = ()
    _thumbnails: tuple[Image.Image | None, ...] = field(default=(), repr=False)  # None: has a path

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def save(self, folder: str | Path) -> list[Path]:
        r"""Write ``predictions.json``, ``predictions.csv`` and contact sheets; return the paths.

        Pictures given by their paths are opened once more, for the sheets. Bytes of a path that
        are not UTF-8 are written as ``\udce9``.
        """
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        written = [out / "predictions.json", out / "predictions.csv"]
        rows = [
            {
                "path": printable(item.path),
                "label": item.label,
                "probability": item.probability,
                "top": [{"label": name, "probability": p} for name, p in item.top],
            }
            for item in self.items
        ]
        write_json(written[0], {"predictions": rows, "damaged": list(self.damaged)})
        write_text(written[1], _csv(self.items))
        pairs = iter(zip(self.items, self._thumbnails, strict=True))
        every_letter = True
        for page, sheet in enumerate(iter(lambda: list(islice(pairs, PER_SHEET)), []), 1):
            path = out / f"predictions_{page:03d}.png"
            every_letter &= write_canvas(_sheet(sheet), path)
            written.append(path)
        if not every_letter:
            _logger.warning(
                "%s: the sheets' font lacks letters of some names: boxes stand there", out
            )
        return written


def predict(
    run: str | Path | Run,
    images: Source | Iterable[Source],
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    on_error: Literal["stop", "skip"] = "stop",
) -> Predictions:
    """Name what pictures show.

    Args:
        run: a run folder, or what :func:`foveal.train` returned.
        images: paths of pictures or of folders of pictures (their subfolders too), PIL images, or
            several of those.
        device: ``auto`` takes the GPU if there is one.
        on_error: a picture that will not open raises (``stop``) or is listed (``skip``).

    Raises:
        ValueError: no such run, no such picture, or no picture in a folder.
        TypeError: neither a path nor a PIL image.
        DamagedPictureError: a picture will not open.
    """
    folder = run_folder(run.path if isinstance(run, Run) else run)
    model = load(folder)
    multi_label = bool(getattr(read_config(folder), "multi_label", False))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: PyTorch sees no GPU here; use auto or cpu")
    if device != "cpu" and torch.cuda.is_available():
        model.to("cuda")
    sources = [images] if isinstance(images, str | Path | Image.Image) else list(images)
    found = [picture for source in sources for picture in _expand(source)]
    items: list[Prediction] = []
    damaged: list[str] = []
    thumbnails: list[Image.Image | None] = []
    for start in range(0, len(found), BATCH_SIZE):
        opened: list[tuple[str, Image.Image]] = []
        for source in found[start : start + BATCH_SIZE]:
            try:
                opened.append(_open(source))
            except DamagedPictureError as error:
                if on_error == "stop":
                    raise
                damaged.append(str(error))
        if opened:
            items += _predict_batch(model, opened, multi_label)
        thumbnails += [None if path else _shrink(image) for path, image in opened]
    return Predictions(tuple(items), tuple(damaged), tuple(thumbnails))


@torch.inference_mode()
def _predict_batch(
    model: nn.Module, pictures: Sequence[tuple[str, Image.Image]], multi_label: bool
) -> list[Prediction]:
    classes: tuple[str, ...] = model.classes  # type: ignore[assignment]
    x = torch.stack([model.preprocess(image) for _, image in pictures])  # type: ignore[operator]
    logits = model(x.to(next(model.parameters()).device)).double().cpu()
    probabilities = logits.sigmoid() if multi_label else logits.softmax(1)
    values, indices = probabilities.topk(min(TOP, len(classes)), 1)
    result: list[Prediction] = []
    for (path, _), p, k in zip(pictures, values.tolist(), indices.tolist(), strict=True):
        top = tuple((classes[i], v) for i, v in zip(k, p, strict=True))
        label = top[0][0]
        if multi_label:
            row = probabilities[len(result)]
            label = ";".join(classes[int(i)] for i in (row > 0.5).nonzero()[:, 0])
        result.append(Prediction(path, label, top[0][1], top))
    return result


def _expand(source: Source) -> list[Source]:
    """Return the pictures that a source stands for."""
    if isinstance(source, Image.Image):
        return [source]
    if not isinstance(source, str | Path):
        raise TypeError(f"a picture must be a path or a PIL image, not {type(source).__name__}")
    path = Path(source)
    if path.is_dir():
        pictures: list[Source] = [p for p in walk(path) if is_picture_name(p.name)]
        if not pictures:
            raise ValueError(f"{path}: there is no picture in this folder")
        return pictures
    if not path.exists():
        raise ValueError(f"{path}: there is no such picture or folder")
    return [path]


def _open(source: Source) -> tuple[str, Image.Image]:
    if isinstance(source, Image.Image):
        try:
            return "", upright_rgb(source)
        except (OSError, ValueError) as error:
            name = getattr(source, "filename", "") or "a picture given as an object"
            raise DamagedPictureError(name, f"will not decode ({error})") from error
    return str(source), open_picture(Path(source))


def _csv(items: Sequence[Prediction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "probability"])
    writer.writerows(
        [printable(item.path), item.label, f"{item.probability:.6f}"] for item in items
    )
    return text.getvalue()


def _shrink(image: Image.Image) -> Image.Image:
    image.thumbnail((160, 160))
    return image


def _sheet(pairs: Sequence[tuple[Prediction, Image.Image | None]]) -> Canvas:
    """Return thumbnails with what the network says above each, and the file's name below."""
    columns = min(8, len(pairs))
    rows = -(-len(pairs) // columns)
    canvas = Canvas(figsize=(columns * 1.5, rows * 1.85), layout="constrained")
    cells = canvas.subplots(rows, columns, squeeze=False).flatten()
    for axes in cells:
        axes.axis("off")
    for axes, (item, image) in zip(cells, pairs, strict=False):
        style: dict[str, Any] = {"parse_math": False}  # a name may hold dollar signs
        below: dict[str, Any] = {"ha": "center", "va": "top", "transform": axes.transAxes, **style}
        try:
            axes.imshow(image or _shrink(open_picture(item.path)))
        except DamagedPictureError:
            axes.text(0.5, 0.5, "will not open\nany more", fontsize=6, **below)
        title = f"{item.label[:18]}\n{item.probability:.0%}"
        axes.set_title(title, fontsize=8, color=INK, **style)
        axes.text(0.5, -0.04, printable(Path(item.path).name)[-22:], fontsize=6, **below)
    return canvas
