"""``foveal eval --predictions``: the scores of maps that another program wrote."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.cli.parser import add_part, given_part
from foveal.config import DENSE_TASKS, updated

if TYPE_CHECKING:
    from foveal.data.dense import DenseData


@dataclass(frozen=True, kw_only=True)
class ScoresConfig:
    """How maps are scored.

    Attributes:
        min_max: stretch each saliency map to span 0 to 1 first, as PySODMetrics does.
        thresholds: number of thresholds at which edges and skeletons are cut.
    """

    min_max: bool = True
    thresholds: int = 99


def add_map_arguments(parser: Any) -> None:
    """Add the arguments that say which maps are scored, and how.

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
    for task in DENSE_TASKS:
        add(f"--data.{task}.root", metavar="VALUE", help=f"data with {task} maps")
        add(f"--data.{task}.layout", metavar="VALUE", help="layout of these data (default: auto)")
        add(f"--data.{task}.domain", metavar="VALUE", help="which of their domains, of several")
    add("--inverted", action="store_const", const=True, help="the maps are dark on white")
    add_part(parser, ScoresConfig, "scores.", without_run=True)
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
    scores = updated(ScoresConfig(), given_part(args, ScoresConfig, "scores."), "scores.")

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

    common = _given(args, "", ("root", "layout", "labels", "domain"))
    own = {
        task: _given(args, f"data.{task}.", ("root", "layout", "domain")) for task in DENSE_TASKS
    }
    own = {task: given for task, given in own.items() if given}
    if own and common:
        first = next(f"--data.{task}.{key}" for task, given in own.items() for key in given)
        raise ValueError(
            f"--data.{next(iter(common))} is of one set for all tasks, and {first} of a set for "
            "one: give either the one kind or the other"
        )
    if not own:
        labels = common.pop("labels", None)
        tasks = [labels] if labels is not None else _tasks(args)
        own = dict.fromkeys(tasks, common)
    return {
        task: read_dense(
            given.get("root"), given.get("layout", "auto"), task=task, domain=given.get("domain")
        )
        for task, given in own.items()
    }


def _given(args: argparse.Namespace, prefix: str, keys: Iterable[str]) -> dict[str, str]:
    """Return what flags of these names gave."""
    values = {key: vars(args)[prefix + key] for key in keys}
    return {key: value for key, value in values.items() if value is not None}


def _tasks(args: argparse.Namespace) -> list[str]:
    """Return the tasks that are meant where one set may have maps for several."""
    from foveal.data.layouts import LAYOUTS, locate

    name, _ = locate(args.root, args.layout or "auto", "dense", default="scenes")
    tasks = LAYOUTS[name].maps
    if len(tasks) == 1:
        return list(tasks)
    if found := [task for task in tasks if Path(args.predictions, task).is_dir()]:
        return found
    raise ValueError(
        f"{args.root or name}: may have maps for several tasks, and {args.predictions} has no "
        f"folder {', '.join(f'{task}/' for task in tasks[:-1])} or {tasks[-1]}/: say which maps "
        "are meant with --data.labels"
    )
