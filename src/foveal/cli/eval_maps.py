"""``foveal eval --predictions``: the scores of maps that another program wrote."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.cli.parser import add_part, given_part, words
from foveal.config import DENSE_TASKS, MapScoresConfig, updated
from foveal.names import unknown

if TYPE_CHECKING:
    from foveal.data.dense import DenseData


_DRAWN = {"val_fraction": float, "test_fraction": float, "split_seed": int}


def add_dense_arguments(parser: Any) -> None:
    """Add the arguments about maps, be they those of a run or of another program.

    Args:
        parser: a parser or a group of one.
    """
    add = parser.add_argument
    add(
        "--tasks",
        metavar="A,B",
        type=words,
        help="which maps (default: all that the data and the run, or DIR, have)",
    )
    for task in DENSE_TASKS:
        add(f"--data.{task}.root", metavar="VALUE", help=f"data with {task} maps")
        add(f"--data.{task}.layout", metavar="VALUE", help="layout of these data (default: auto)")
        add(f"--data.{task}.domain", metavar="VALUE", help="which of their domains, of several")
    add_part(parser, MapScoresConfig, "scores.", without_run=True, leave_out=("val_thresholds",))


def given_sets(args: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Return what flags gave about the sets of single tasks."""
    return {task: given for task in DENSE_TASKS if (given := _given(args, f"data.{task}."))}


def add_map_arguments(parser: Any) -> None:
    """Add the arguments that say which maps of another program are scored, and how.

    Args:
        parser: a parser or a group of one.
    """
    add = parser.add_argument
    add(
        "--predictions",
        metavar="DIR",
        help="score the maps in this folder, written by any program: of each task in a folder "
        "saliency/, edge/ or skeleton/ in it, of a single task also in DIR itself; found by the "
        "pictures' names without suffix; 8 or 16 bits, or .npy",
    )
    add("--task", metavar="TASK", help="task of these maps: dense")
    for name, kind in _DRAWN.items():
        add(f"--data.{name}", type=kind, metavar="X", help="as of train, where parts are drawn")
    add("--inverted", action="store_const", const=True, help="the maps are dark on white")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="processes that count edges and skeletons (default: one for each processor)",
    )
    add(
        "--counts",
        type=Path,
        metavar="FILE",
        help="keep here, one line for each picture, what edges and skeletons count; a run that "
        "was stopped goes on from it (default: nothing is kept)",
    )


def run(args: argparse.Namespace) -> int:
    """Score the maps that are meant, and print the scores."""
    if args.task != "dense":
        given = "--task dense" if args.task is None else f"--task dense, not {args.task}"
        raise ValueError(
            f"--predictions takes maps of saliency, edges or skeletons: give it with {given}"
        )
    if args.workers is not None and args.workers < 1:
        raise ValueError(f"--workers must be at least 1, not {args.workers}")
    if args.counts is not None and args.counts.is_dir():
        raise ValueError(f"--counts must be a file, and {args.counts} is a folder")
    scores = updated(MapScoresConfig(), given_part(args, MapScoresConfig, "scores."), "scores.")

    from foveal.tasks.map_evaluation import evaluate_maps
    from foveal.tasks.progress import steps_bar
    from foveal.tasks.run import to_json

    data = _data(args)
    with steps_bar() as progress:
        result = evaluate_maps(
            args.predictions,
            data,
            args.split,
            inverted=bool(args.inverted),
            min_max=scores.min_max,
            thresholds=scores.thresholds,
            workers=args.workers,
            counts_file=args.counts,
            progress=progress,
        )
    for remark in result.remarks:
        print(remark, file=sys.stderr)
    if args.json:
        print(to_json(result.scores))
        return 0
    for task, count in result.pictures.items():
        pictures = "picture" if count == 1 else "pictures"
        print(f"{count:,d} {pictures} of split {args.split}, {task}: {result.origins[task]}")
    width = max(map(len, result.scores))
    for name, value in result.scores.items():
        print(f"{name:{width}} {value:.4f}")
    return 0


def _data(args: argparse.Namespace) -> "Mapping[str, DenseData]":
    """Read the data that hold the truth, of each task that is meant."""
    from foveal.data.dense import read_dense

    if args.labels is not None:
        raise ValueError("--data.labels is for other data: --tasks says which maps are meant")
    common = _given(args, "")
    own = given_sets(args)
    tasks = _tasks(args, own, common)
    sets = {task: own.get(task, common) for task in tasks}
    drawn = {
        name: vars(args)[f"data.{name}"]
        for name in _DRAWN
        if vars(args)[f"data.{name}"] is not None
    }
    return {
        task: read_dense(
            given.get("root"),
            given.get("layout", "auto"),
            task=task,
            domain=given.get("domain"),
            **drawn,
        )
        for task, given in sets.items()
    }


def _given(args: argparse.Namespace, prefix: str) -> dict[str, str]:
    """Return what flags about a set gave."""
    values = {key: vars(args)[prefix + key] for key in ("root", "layout", "domain")}
    return {key: value for key, value in values.items() if value is not None}


def _tasks(
    args: argparse.Namespace, own: Mapping[str, Mapping[str, str]], common: Mapping[str, str]
) -> list[str]:
    """Return the tasks that are meant: as in training, but no more than there are maps of.

    Args:
        args: of the command.
        own: tasks with a set of their own.
        common: what was said of the set for all others.
    """
    from foveal.data.dense import tasks_of

    if args.tasks is not None:
        tasks: list[str] = args.tasks
        for task in tasks:
            if task not in DENSE_TASKS:
                raise ValueError(unknown("task", task, DENSE_TASKS))
            if task not in own and own and not common:
                raise ValueError(f"--data.{task}.root is missing: say where its pictures are")
        for task in own:
            if task not in tasks:
                raise ValueError(
                    f"--data.{task}.{next(iter(own[task]))} is given, but {task} is not among the "
                    f"tasks {', '.join(tasks)}: leave one of the two out"
                )
        return tasks
    if own and not common:
        return list(own)
    tasks = [t for t in tasks_of(args.root, args.layout or "auto") if t not in own]
    if len({*tasks, *own}) > 1:
        tasks = [task for task in tasks if Path(args.predictions, task).is_dir()]
    if not tasks and not own:
        folders = f"{', '.join(f'{task}/' for task in DENSE_TASKS[:-1])} or {DENSE_TASKS[-1]}/"
        raise ValueError(
            f"{args.predictions}: has no folder {folders}: say with --tasks of which task all its "
            "maps are"
        )
    return [*own, *tasks]
