"""Pictures with maps of saliency, edges or skeletons: any layout, always three splits."""

from dataclasses import dataclass
from pathlib import Path

from foveal.config import DENSE_TASKS
from foveal.data import pair_maps
from foveal.data.classification import first_of
from foveal.data.joint import JointPictures, join
from foveal.data.layouts import LAYOUTS, Layout, locate
from foveal.data.maps import FloatMap, FoundMaps, MappedPictures, Truth
from foveal.data.read_data import ReadData
from foveal.data.splits import make_map_splits
from foveal.names import unknown

__all__ = [
    "DenseData",
    "FloatMap",
    "JointPictures",
    "MappedPictures",
    "Truth",
    "find_dense",
    "join",
    "read_dense",
    "tasks_of",
]


@dataclass(frozen=True, kw_only=True)
class DenseData(ReadData[MappedPictures]):
    """Pictures with maps of one set for one task.

    Attributes, beside those of :class:`~foveal.data.read_data.ReadData`:
        task: ``saliency``, ``edge`` or ``skeleton``.
    """

    task: str


def read_dense(
    root: str | Path | None,
    layout: str = "auto",
    *,
    task: str | None = None,
    domain: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
) -> DenseData:
    """Read the maps of one set for one task, and make the splits that the layout does not have.

    A map is opened when its picture is; only then, or by ``foveal data check``, are wrong values
    in it found. A map without any positive pixel is allowed.

    Args:
        root: folder, or list of pairs; None for the built-in scenes.
        layout: name of the layout, or ``auto`` to look.
        task: ``saliency``, ``edge`` or ``skeleton``; None: the one that the layout has.
        domain: which domain, where the layout has several; None: its first.
        val_fraction: share of the training pictures for validation where no part is given.
        test_fraction: share for testing where the layout has only one folder of pictures.
        split_seed: of those two draws, which do not look at what the pictures show; sets with
            equal pictures for several tasks are divided alike.

    Raises:
        FileNotFoundError: nothing at ``root``.
        ValueError: an unknown layout, data of another task, no pictures, a picture or map
            without partner, or too few pictures to divide.
    """
    name, task, found = find_dense(root, layout, task=task, domain=domain)
    if found.problems:
        raise ValueError(first_of(found.problems))
    splits, origins = make_map_splits(found, val_fraction, test_fraction, split_seed)
    return DenseData(
        layout=name,
        root=None if LAYOUTS[name].built_in else str(root),
        task=task,
        splits=splits,
        origins=origins,
        image_size=found.image_size,
        notes=found.notes,
    )


def tasks_of(root: str | Path | None, layout: str = "auto") -> tuple[str, ...]:
    """Return the tasks that a set has maps for.

    Args:
        root: folder, or list of pairs; None for the built-in scenes.
        layout: name of the layout, or ``auto`` to look.

    Raises:
        FileNotFoundError: nothing at ``root``.
        ValueError: an unknown layout, or one in which no name tells what the maps are of.
    """
    name, path = locate(root, layout, "dense", default="scenes")
    tasks = LAYOUTS[name].maps
    if LAYOUTS[name].built_in or len(tasks) == 1:
        return tasks
    assert path is not None
    tasks = pair_maps.tasks_in(path) if path.is_dir() else ()
    if not tasks:
        raise ValueError(
            f"{path}: say what its maps are of: --tasks saliency, edge or skeleton, or give the "
            "folder as --data.saliency.root or the like"
        )
    return tasks


def find_dense(
    root: str | Path | None,
    layout: str = "auto",
    *,
    task: str | None = None,
    domain: str | None = None,
) -> tuple[str, str, FoundMaps]:
    """Return layout, task and what the reader finds, before splits are made and checked.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_dense`.
    """
    if task is not None and task not in DENSE_TASKS:
        raise ValueError(unknown("task", task, DENSE_TASKS))
    name, path = locate(root, layout, "dense", default="scenes")
    row = LAYOUTS[name]
    task = _only_task(row, str(path or name)) if task is None else task
    if task not in row.maps:
        raise ValueError(
            f"{path}: the {row.title} layout has no {task} maps, it is for {' and '.join(row.maps)}"
        )
    options = row.choices(path or name, None, domain)
    if len(row.maps) > 1:
        options["task"] = task
    read = row.reader("dense")
    assert read is not None  # or locate() would have complained
    found = read(**options) if path is None else read(path, **options)
    assert isinstance(found, FoundMaps)
    if not found.parts and not found.problems:
        raise ValueError(f"{path}: no pictures in it")
    return name, task, found


def _only_task(row: Layout, where: str) -> str:
    if len(row.maps) > 1:
        raise ValueError(
            f"{where}: the {row.title} layout serves several tasks: say which maps are meant "
            f"(--labels, in Python task=), {', '.join(row.maps[:-1])} or {row.maps[-1]}"
        )
    return row.maps[0]
