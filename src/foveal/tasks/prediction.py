"""``foveal.predict``: what a trained network says about pictures."""

import csv
import importlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import nn

from foveal.config import TrainConfig, task_of
from foveal.data.pictures import (
    DamagedPictureError,
    is_picture_name,
    open_picture,
    upright_rgb,
    walk,
)
from foveal.tasks.chosen_tasks import with_tasks
from foveal.tasks.run import (
    Run,
    load,
    read_config,
    run_folder,
    with_part,
    write_json,
    write_text,
)

Source = str | Path | Image.Image
Picture = tuple[str, Image.Image]
"""Where a picture is (empty for one given as an object), and the picture."""

PREDICTIONS = {
    "classify": ("foveal.tasks.classify_prediction", "ClassPredictions"),
    "segment": ("foveal.tasks.segment_prediction", "SegmentPredictions"),
    "dense": ("foveal.tasks.dense_prediction", "DensePredictions"),
    "weak": ("foveal.tasks.segment_prediction", "SegmentPredictions"),
}


@dataclass(frozen=True)
class Predictions(Sequence[Any], ABC):
    """What a network says about pictures, in their order; each task has its own kind.

    Attributes:
        items: one per picture that opened; ``str()`` of one is for people.
        damaged: one complaint for each picture that did not.
    """

    HEADER: ClassVar[tuple[str, ...]]
    """Columns of ``predictions.csv``; empty where a row has none such."""
    OPENED: ClassVar[int]
    """Pictures that are open at a time."""

    items: tuple[Any, ...]
    damaged: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    @staticmethod
    @abstractmethod
    def items_of(model: nn.Module, config: TrainConfig, pictures: Sequence[Picture]) -> list[Any]:
        """Return what a run's network says about some pictures."""

    @abstractmethod
    def draw(self, folder: Path) -> tuple[list[dict[str, Any]], list[Path]]:
        """Write the pictures of the results.

        Returns:
            A row of ``predictions.json`` for each item, and the paths written.
        """

    def save(self, folder: str | Path) -> list[Path]:
        r"""Write ``predictions.json``, ``predictions.csv`` and pictures; return the paths.

        Pictures given by their paths are opened once more. Bytes of a path that are not UTF-8 are
        written as ``\udce9``.
        """
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        rows, drawn = self.draw(out)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.HEADER)
        writer.writerows([_cell(row.get(name, "")) for name in self.HEADER] for row in rows)
        written = [out / "predictions.json", out / "predictions.csv"]
        write_json(written[0], {"predictions": rows, "damaged": list(self.damaged)})
        write_text(written[1], text.getvalue())
        return [*written, *drawn]


def predict(
    run: str | Path | Run,
    images: Source | Iterable[Source],
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    on_error: Literal["stop", "skip"] = "stop",
    tasks: Sequence[str] | None = None,
    sliding: Mapping[str, Any] | None = None,
    inference: Mapping[str, Any] | None = None,
) -> Predictions:
    """Say what pictures show: the class of each, or of each of its pixels, or maps of each.

    Args:
        run: a run folder, or what :func:`foveal.train` returned.
        images: paths of pictures or of folders of pictures (their subfolders too), PIL images, or
            several of those.
        device: ``auto`` takes the GPU if there is one.
        on_error: a picture that will not open raises (``stop``) or is listed (``skip``).
        tasks: which maps a dense run shall make, such as ``["edge"]``, all of one pass; None: all
            that it has learned.
        sliding: as of :func:`foveal.evaluate`.
        inference: as of :func:`foveal.evaluate`; ``bits`` are those of the maps' files.

    Raises:
        ValueError: no such run, no such picture, no picture in a folder, a task that was not
            learned, or what is of another task's runs.
        TypeError: neither a path nor a PIL image.
        DamagedPictureError: a picture will not open.
    """
    folder = run_folder(run.path if isinstance(run, Run) else run)
    config = with_part(read_config(folder), "sliding", sliding, folder)
    config = with_part(config, "inference", inference, folder)
    model: Any = load(folder)
    config = with_tasks(config, tasks, model.classes, folder)
    module, name = PREDICTIONS[task_of(config)]
    kind: type[Predictions] = getattr(importlib.import_module(module), name)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: PyTorch sees no GPU here; use auto or cpu")
    if device != "cpu" and torch.cuda.is_available():
        model.to("cuda")
    sources = [images] if isinstance(images, str | Path | Image.Image) else list(images)
    found = [picture for source in sources for picture in expand_source(source)]
    items: list[Any] = []
    damaged: list[str] = []
    for start in range(0, len(found), kind.OPENED):
        opened: list[Picture] = []
        for source in found[start : start + kind.OPENED]:
            try:
                opened.append(open_source(source))
            except DamagedPictureError as error:
                if on_error == "stop":
                    raise
                damaged.append(str(error))
        if opened:
            items += kind.items_of(model, config, opened)
    return kind(tuple(items), tuple(damaged))


def file_names(items: Sequence[Any]) -> Iterator[str]:
    """Yield a file name for each result: its picture's as PNG, numbered where others have it too.

    Args:
        items: each with a ``path``, which may be empty.
    """
    taken: set[str] = set()
    for number, item in enumerate(items, 1):
        name = Path(item.path).stem or f"picture_{number:05d}"
        while name.lower() in taken:  # letters of upper and lower case are the same on some disks
            name += f"_{number:05d}"
        taken.add(name.lower())
        yield f"{name}.png"


def open_again(path: str, kept: Image.Image | None) -> Image.Image | None:
    """Return a picture that was predicted, or None where it no longer opens.

    Args:
        path: where it is.
        kept: the picture itself, where it has no path.
    """
    try:
        return open_picture(path) if kept is None else kept
    except DamagedPictureError:
        return None


def expand_source(source: Source) -> list[Source]:
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


def open_source(source: Source) -> Picture:
    """Open a picture.

    Raises:
        DamagedPictureError: it will not open.
    """
    if isinstance(source, Image.Image):
        try:
            return "", upright_rgb(source)
        except (OSError, ValueError) as error:
            name = getattr(source, "filename", "") or "a picture given as an object"
            raise DamagedPictureError(name, f"will not decode ({error})") from error
    return str(source), open_picture(Path(source))


def _cell(value: Any) -> Any:
    return f"{value:.6f}" if isinstance(value, float) else value
