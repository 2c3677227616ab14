"""``foveal data check``: look at data before training on it."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foveal.cli.parser import CommandParser

if TYPE_CHECKING:
    from foveal.data.check import DataReport
    from foveal.data.check_maps import MapReport
    from foveal.data.check_masks import MaskReport

TASKS = ("classify", "segment", "dense")
"""Tasks whose data can be looked at."""


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which data are meant."""
    parser.add_argument(
        "root", metavar="DIR", help="folder or .csv file; or a built-in set, such as scenes"
    )
    parser.add_argument("--layout", default="auto")
    parser.add_argument(
        "--task",
        choices=TASKS,
        help="for which the data are read; else the one that the layout is made for",
    )
    parser.add_argument(
        "--labels",
        help="which labels, where the layout has several; for dense saliency, edge or skeleton",
    )
    parser.add_argument("--domain", help="which domain, where the layout has several")
    parser.add_argument("--multi_label", action="store_true")


def root_and_layout(args: argparse.Namespace) -> tuple[str | None, str]:
    """Return the root, None for a built-in set, and the layout that are meant."""
    from foveal.data.layouts import LAYOUTS

    built_in = args.root in LAYOUTS and LAYOUTS[args.root].built_in
    return (None, args.root) if built_in else (args.root, args.layout)


def png_path(text: str) -> Path:
    """Return the path of a picture to write; what a flag's ``type`` may be."""
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"a contact sheet is a .png file, not {text!r}")
    return Path(text)


def run(argv: Sequence[str]) -> int:
    """Run the command; status 2 if there are problems."""
    parser = CommandParser(prog="foveal data check", description="Open every picture once.")
    add_data_arguments(parser)
    parser.add_argument("--out", type=png_path, metavar="FILE", help="contact sheet to draw: PNG")
    args = parser.parse_args(argv)

    from foveal.tasks.progress import reading_bar

    with reading_bar("opening every picture") as progress:
        report = _check(args, progress)
    print(report)
    if args.out is not None:
        from foveal.cli.data_show import write_contact_sheet

        write_contact_sheet(args)
    return 2 if report.problems else 0


def task_meant(args: argparse.Namespace) -> str:
    """Return the task for which the data are meant, such as ``segment``.

    Raises:
        ValueError: several labels of a picture were asked for where the data have masks or maps.
    """
    from foveal.data.layouts import LAYOUTS, detect

    root, layout = root_and_layout(args)
    if layout == "auto" and root is not None and args.task is None:
        layout = detect(Path(root).expanduser())
    row = LAYOUTS.get(layout)
    # A layout that cannot be looked at gets its sentence from the reader of classification.
    made_for = "classify" if row is None or row.read is None else row.task
    if args.multi_label and row is not None and row.shown is not None:
        made_for = "classify"
    task: str = args.task or (made_for if made_for in TASKS else "classify")
    if task != "classify" and args.multi_label:
        what = "masks" if task == "segment" else "maps"
        raise ValueError(f"{args.root}: is read for its {what}: leave out --multi_label")
    return task


def _check(
    args: argparse.Namespace, progress: Callable[[int, int], None]
) -> "DataReport | MaskReport | MapReport":
    root, layout = root_and_layout(args)
    task = task_meant(args)
    if task == "dense":
        from foveal.data.check_maps import check_dense

        return check_dense(root, layout, task=args.labels, domain=args.domain, progress=progress)
    if task == "segment":
        from foveal.data.check_masks import check_segmentation

        return check_segmentation(
            root, layout, labels=args.labels, domain=args.domain, progress=progress
        )
    from foveal.data.check import check_classification

    return check_classification(
        root,
        layout,
        labels=args.labels,
        domain=args.domain,
        multi_label=args.multi_label,
        progress=progress,
    )
