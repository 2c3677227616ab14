"""Scoring folders of saliency, edge and skeleton maps that any program wrote."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from foveal.config import DENSE_TASKS
from foveal.data.check_report import distinct_splits
from foveal.data.dense import DenseData, MappedPictures, Truth
from foveal.data.pictures import printable
from foveal.data.prediction_maps import find_prediction_maps, read_prediction_map
from foveal.metrics.boundaries import EDGES, SKELETONS, check_boundaries
from foveal.metrics.saliency import SaliencyScores
from foveal.metrics.saliency_pair import SaliencyPair
from foveal.names import unknown
from foveal.tasks.boundary_evaluation import evaluate_boundaries

BOUNDARY_PROTOCOLS = {"edge": EDGES, "skeleton": SKELETONS}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MapEvaluation:
    """Scores of maps and what they were measured on.

    Attributes:
        scores: ``{"test/saliency/mae": 0.04, "test/edge/ods": 0.78, ...}``; the prefix is the
            split's name. A task in which not one pixel is true has nan.
        pictures: task → number of pictures.
        origins: task → where they came from, one phrase.
        remarks: what a reader of the scores should know: how maps were compared, and which look
            as if they were not meant so.
    """

    scores: dict[str, float]
    pictures: dict[str, int]
    origins: dict[str, str]
    remarks: tuple[str, ...]


def evaluate_maps(
    predictions: str | Path,
    data: Mapping[str, DenseData],
    split: str = "test",
    *,
    inverted: bool = False,
    min_max: bool = True,
    thresholds: int = 99,
    workers: int | None = None,
    counts_file: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> MapEvaluation:
    """Score folders of maps, of one task or several.

    Saliency is scored by :class:`~foveal.metrics.SaliencyScores`, edges and skeletons by
    :func:`~foveal.tasks.boundary_evaluation.evaluate_boundaries` with
    :data:`~foveal.metrics.EDGES` and :data:`~foveal.metrics.SKELETONS`. All files of all tasks are
    read and checked before anything is scored.

    Args:
        predictions: folder with the maps of each task in a folder called after it; of a single
            task they may lie in it directly. A map for each picture, of equal stem: 8 or 16 bits a
            pixel, or ``.npy``; see :func:`~foveal.data.prediction_maps.find_prediction_maps`.
        data: task → its pictures, of :func:`~foveal.data.dense.read_dense`.
        split: ``train``, ``val`` or ``test``, or ``all`` of them.
        inverted: the maps are dark on white.
        min_max: stretch each saliency map to span [0, 1] first.
        thresholds: at which edges and skeletons are cut.
        workers: processes that count edges and skeletons; None: one for each processor. With more
            than 1, the call in a script must stand under ``if __name__ == "__main__":``.
        counts_file: keeps what each picture of edges and skeletons counts, so that a run that was
            stopped goes on; None: nothing is kept.
        progress: called with (what is done, done, total).

    Raises:
        ValueError: no task, an unknown one or an unknown split, no pictures; no folder of a task;
            a map that is missing, damaged, of another size or type, or out of range.

    Example:
        >>> data = {"edge": read_dense("BSDS500")}                        # doctest: +SKIP
        >>> evaluate_maps("maps", data).scores["test/edge/ods"]           # doctest: +SKIP
        0.7881...
    """
    protocols = {
        task: replace(protocol, thresholds=thresholds)
        for task, protocol in BOUNDARY_PROTOCOLS.items()
    }
    collections = _find(Path(predictions), data, split, inverted)
    remarks = [note for task in collections for note in data[task].notes]
    remarks += _checked(collections, progress)
    scores: dict[str, float] = {}
    for task, maps in collections.items():
        if task == "saliency":
            found = _saliency(maps, min_max, partial(progress, task))
            how = "each map stretched to span 0 to 1" if min_max else "the values as they are"
            remarks.append(f"saliency: {how} (min_max {str(min_max).lower()})")
        else:
            evaluation = evaluate_boundaries(
                maps.folder,
                maps.pictures,
                protocols[task],
                inverted=inverted,
                workers=workers,
                counts_file=counts_file,
                progress=partial(progress, task),
            )
            summary = evaluation.summary
            found = {name: getattr(summary, name) for name in ("ods", "ois", "ap", "r50")}
            remarks.append(
                f"{task}: {_number(thresholds, 'threshold')}, pixels matched within "
                f"{protocols[task].tolerance} of the diagonal, "
                + (
                    "no scores, for not one pixel is true"
                    if math.isnan(summary.ods)
                    else f"ods at threshold {summary.threshold:.3f}"
                )
            )
            if counts_file is not None:
                counted = _number(evaluation.counted, "picture")
                remarks.append(f"{task}: {counted} counted and added to {printable(counts_file)}")
        scores |= {f"{split}/{task}/{name}": value for name, value in found.items()}
    return MapEvaluation(
        scores=scores,
        pictures={task: len(maps.pictures) for task, maps in collections.items()},
        origins={task: maps.origin for task, maps in collections.items()},
        remarks=tuple(remarks),
    )


class _AllSplits:
    """The pictures of several splits, one split after the other.

    Args:
        splits: of one set.
    """

    def __init__(self, splits: Sequence[MappedPictures]) -> None:
        self.splits = splits

    def __len__(self) -> int:
        return sum(map(len, self.splits))

    def name(self, index: int) -> str:
        pictures, place = self._find(index)
        return pictures.name(place)

    def size(self, index: int) -> tuple[int, int]:
        pictures, place = self._find(index)
        return pictures.size(place)

    def truth(self, index: int) -> Truth:
        pictures, place = self._find(index)
        return pictures.truth(place)

    def annotations(self, index: int) -> list[NDArray[np.bool_]]:
        pictures, place = self._find(index)
        return pictures.annotations(place)

    def _find(self, index: int) -> tuple[MappedPictures, int]:
        for pictures in self.splits:
            if index < len(pictures):
                return pictures, index
            index -= len(pictures)
        raise IndexError(index)


@dataclass(frozen=True)
class _Maps:
    """Predicted maps of a task, in the order of the pictures."""

    folder: Path
    paths: list[Path]
    pictures: MappedPictures | _AllSplits
    origin: str
    inverted: bool

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> tuple[NDArray[Any], Truth]:
        """Return a map [H, W] as it is stored, and the picture's truth."""
        values = read_prediction_map(self.paths[index], inverted=self.inverted)
        return values, self.pictures.truth(index)

    def fitted(self, index: int, values: NDArray[Any], truth: Truth) -> NDArray[Any]:
        """Return a map scaled to the truth if it has its picture's size and the truth has not.

        In some public saliency sets the truth is a pixel larger or smaller than the picture. Any
        other difference in size is left to be refused.
        """
        size = values.shape[::-1]
        near = all(abs(a - b) <= 1 for a, b in zip(size, truth.size, strict=True))
        if size == truth.size or not near or size != self.pictures.size(index):
            return values
        top = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
        image = Image.fromarray((values / top).astype(np.float32))
        return np.asarray(image.resize(truth.size, Image.Resampling.BILINEAR))

    def check(self, index: int, task: str) -> Iterator[str]:
        """Yield what is odd about a map; raise ValueError if it cannot be scored."""
        stored, truth = self.read(index)
        values = self.fitted(index, stored, truth) if task == "saliency" else stored
        with _named(self.paths[index]):
            if task == "saliency":
                true = SaliencyPair.of(values, truth.map).truth
            else:
                _, true = check_boundaries(values, truth.annotations)
        low, high = stored.min(), stored.max()
        if low == high:
            yield "maps with one value everywhere"
        elif stored.dtype.kind == "u" and high - low == 1:  # also of inverted ones
            yield "maps of two neighbouring levels, where 255 (of 16 bits 65535) is certain"
        if values.shape != stored.shape:
            yield "maps of their picture's size, scaled to a truth that is a pixel off"
        if not true.any():
            yield "maps of pictures in whose truth not one pixel is true"


def _find(
    predictions: Path, data: Mapping[str, DenseData], split: str, inverted: bool
) -> dict[str, _Maps]:
    """Return the maps of each task, in the usual order; no file is opened yet."""
    if not data:
        raise ValueError(f"there is no task to score: it must be one of {', '.join(DENSE_TASKS)}")
    for task in data:
        if task not in DENSE_TASKS:
            raise ValueError(unknown("task", task, DENSE_TASKS))
    if split not in ("train", "val", "test", "all"):
        raise ValueError(f"the split must be train, val, test or all, not {split!r}")
    found = {}
    for task in (task for task in DENSE_TASKS if task in data):
        pictures, origin = _pictures(data[task], split)
        if not len(pictures):
            where = f"{data[task].root}: " if data[task].root else ""
            raise ValueError(f"{where}there are no {split} pictures to score ({origin})")
        folder = _folder(predictions, task, alone=len(data) == 1)
        paths = find_prediction_maps(folder, [pictures.name(k) for k in range(len(pictures))])
        found[task] = _Maps(folder, paths, pictures, origin, inverted)
    return found


def _pictures(data: DenseData, split: str) -> tuple[MappedPictures | _AllSplits, str]:
    """Return the pictures of a split or of all, and where they came from."""
    if split != "all":
        return data.splits[split], data.origins[split]
    distinct = distinct_splits(data.splits)
    counts = ", ".join(f"{name} {len(pictures):,d}" for name, pictures in distinct.items())
    return _AllSplits(list(distinct.values())), counts


def _folder(predictions: Path, task: str, *, alone: bool) -> Path:
    """Return where the maps of a task are."""
    own = predictions / task
    if own.is_dir() or (alone and predictions.is_dir()):
        return own if own.is_dir() else predictions
    if not predictions.is_dir():
        raise ValueError(f"{printable(predictions)}: there is no such folder")
    raise ValueError(
        f"{printable(predictions)}: there is no folder {task}/ in it: of several tasks, each has "
        "its maps in a folder called after it"
    )


def _checked(collections: Mapping[str, _Maps], progress: Progress) -> list[str]:
    """Read every file; return remarks about what may not be meant so, or raise ValueError."""
    total, done = sum(map(len, collections.values())), 0
    odd: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for task, maps in collections.items():
        for index, path in enumerate(maps.paths):
            for what in maps.check(index, task):
                odd[task, what].append(path)
            done += 1
            progress("checking", done, total)
    return [
        f"{task}: {what}: {len(paths)}, such as {printable(paths[0])}"
        for (task, what), paths in odd.items()
    ]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put a map's path before what is wrong with it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{printable(path)}: {error}") from error


def _saliency(maps: _Maps, min_max: bool, progress: Callable[[int, int], None]) -> dict[str, float]:
    scores = SaliencyScores(min_max)
    for index in range(len(maps)):
        values, truth = maps.read(index)
        values = maps.fitted(index, values, truth)
        if values.dtype.kind == "f":
            values = values.astype(np.float64)  # torch has not all of NumPy's kinds
        scores.update(torch.tensor(index), torch.tensor(values), torch.tensor(truth.map))
        progress(index + 1, len(maps))
    return scores.compute()


def _number(count: int, what: str) -> str:
    return f"{count:,d} {what}" + ("s" if count != 1 else "")
