"""Scoring a folder of edge or skeleton maps that any program wrote, picture after picture.

This takes seconds a picture. So several processes share the pictures, and what each picture counts
is kept in a file: a run that was stopped goes on where it was.
"""

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveal.data.pictures import printable
from foveal.data.prediction_maps import find_prediction_maps, read_prediction_map
from foveal.metrics.boundaries import (
    EDGES,
    BoundaryProtocol,
    BoundarySummary,
    check_boundaries,
    count_boundaries,
    summarize_boundaries,
)
from foveal.tasks.counting_pool import processors

_PROCEDURE = 1  # counted up when the same maps may be counted otherwise

_FIRST_BYTES = b'{"key": "'  # of a file of counts


class AnnotatedPictures(Protocol):
    """Pictures whose boundaries one or more people drew; it must be possible to pickle them."""

    def __len__(self) -> int:
        """Return N."""

    def name(self, index: int) -> str:
        """Return where a picture is: a path."""

    def annotations(self, index: int) -> Sequence[NDArray[np.bool_]]:
        """Return what each annotator drew, bool [H, W]."""


@dataclass(frozen=True)
class BoundaryEvaluation:
    """Scores of a folder of maps.

    Attributes:
        summary: of all pictures.
        pictures: scores of each picture alone, by its path; ``ods`` is its best F.
        counted: how many pictures were counted now, and not taken from the file of an earlier run.
    """

    summary: BoundarySummary
    pictures: dict[str, BoundarySummary]
    counted: int


def evaluate_boundaries(
    predictions: Path,
    pictures: AnnotatedPictures,
    protocol: BoundaryProtocol = EDGES,
    *,
    inverted: bool = False,
    workers: int | None = None,
    counts_file: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BoundaryEvaluation:
    """Score a folder of maps against what people drew.

    All files are read and checked before anything is counted. Ctrl-C ends it with
    ``KeyboardInterrupt``; pictures that are done by then are in ``counts_file``.

    Args:
        predictions: folder with a map for each picture, of equal stem: 8 or 16 bits a pixel, or
            ``.npy``; see :func:`~foveal.data.prediction_maps.read_prediction_map`.
        pictures: the pictures and their truth.
        protocol: how boundaries are compared.
        inverted: the maps are dark on white.
        workers: processes; None: one for each processor. 1 counts in this process. With more, on
            systems that start processes anew (all but Linux), the call in a script must stand under
            ``if __name__ == "__main__":``.
        counts_file: one JSON line a picture, with a hash of all that its counts depend on; lines
            that are there already are used. None: nothing is kept.
        progress: called with (done, total); pictures that are equal in all are one.

    Raises:
        ValueError: a map is missing, damaged, of another size, or out of range; no pictures; the
            counts file is of something else.
    """
    if not len(pictures):
        raise ValueError("there are no pictures to score")
    rows = _read_counts(counts_file)
    names = [pictures.name(index) for index in range(len(pictures))]
    jobs = [
        _Job(path, index, inverted)
        for index, path in enumerate(find_prediction_maps(predictions, names))
    ]
    keys = [_key(*job.read(pictures), protocol) for job in jobs]
    missing = {key: job for key, job in zip(keys, jobs, strict=True) if key not in rows}
    total = len(set(keys))
    progress(total - len(missing), total)
    for counted, (key, row) in enumerate(_count_all(missing, pictures, protocol, workers), start=1):
        rows[key] = row
        if counts_file is not None:
            _append_counts(counts_file, key, names[missing[key].index], row)
        progress(total - len(missing) + counted, total)
    return BoundaryEvaluation(
        summary=summarize_boundaries([rows[key] for key in keys]),
        pictures={
            name: summarize_boundaries([rows[key]]) for name, key in zip(names, keys, strict=True)
        },
        counted=len(missing),
    )


@dataclass(frozen=True)
class _Job:
    path: Path
    index: int
    inverted: bool

    def read(self, pictures: AnnotatedPictures) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the map [H, W] and what annotators drew [A, H, W], checked."""
        prediction = read_prediction_map(self.path, inverted=self.inverted)
        try:
            return check_boundaries(prediction, pictures.annotations(self.index))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{printable(self.path)}: {error}") from error


def _key(prediction: NDArray[Any], drawn: NDArray[np.bool_], protocol: BoundaryProtocol) -> str:
    """Return a hash of all that a picture's counts depend on."""
    content = hashlib.sha256(f"{_PROCEDURE} {protocol} {drawn.shape}".encode())
    content.update(prediction.tobytes())
    content.update(drawn.tobytes())
    return content.hexdigest()


def _count_all(
    jobs: dict[str, _Job],
    pictures: AnnotatedPictures,
    protocol: BoundaryProtocol,
    workers: int | None,
) -> Iterator[tuple[str, list[int]]]:
    """Yield each key with its counts, as they become known."""
    workers = min(workers or processors(), len(jobs))
    if workers <= 1:
        for key, job in jobs.items():
            yield key, _count(job, pictures, protocol)
        return
    before = multiprocessing.active_children()
    pool = ProcessPoolExecutor(
        workers,
        initializer=_start_worker,
        initargs=(pictures, protocol),
    )
    try:
        futures = {pool.submit(_count_in_worker, job): key for key, job in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise OSError(
            "a process that counted lines was ended, perhaps as memory ran out: give fewer workers"
        ) from error
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(multiprocessing.active_children()).difference(before):
            worker.terminate()  # or it would go on to the end of its picture
        raise
    pool.shutdown()


def _count(job: _Job, pictures: AnnotatedPictures, protocol: BoundaryProtocol) -> list[int]:
    row: list[int] = count_boundaries(*job.read(pictures), protocol).row.tolist()
    return row


_shared: tuple[AnnotatedPictures, BoundaryProtocol]


def _start_worker(pictures: AnnotatedPictures, protocol: BoundaryProtocol) -> None:
    global _shared
    _shared = pictures, protocol
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one


def _count_in_worker(job: _Job) -> list[int]:
    return _count(job, *_shared)


def _read_counts(path: Path | None) -> dict[str, list[int]]:
    """Return the counts in a file by key; a line that a stop cut off is left out.

    Raises:
        ValueError: it is a file of something else, to which no counts must be added.
    """
    rows: dict[str, list[int]] = {}
    if path is None or not path.exists():
        return rows
    content = path.read_bytes()
    begun = content.split(b"\n")[0][: len(_FIRST_BYTES)]  # a stop may leave less than a line
    if content and not (begun and _FIRST_BYTES.startswith(begun)):
        raise ValueError(f"{printable(path)}: is no file of counts: give another one")
    for line in content.decode(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            rows[entry["key"]] = entry["counts"]
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def _append_counts(path: Path, key: str, picture: str, row: list[int]) -> None:
    """Add a line and see it written; after a line that was cut off it begins a new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"key": key, "picture": printable(picture), "counts": row}) + "\n"
    with path.open("a+b") as file:
        if file.tell() and not _ends_with_newline(file):
            line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def _ends_with_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
