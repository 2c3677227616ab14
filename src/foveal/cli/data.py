"""``foveal data check``: look at data before training on it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from foveal.cli.parser import CommandParser


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which data are meant."""
    parser.add_argument(
        "root", metavar="DIR", help="folder or .csv file; or a built-in set, such as scenes"
    )
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--labels", help="which labels, where the layout has several sets")
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
    """Run the command; status 2 if a picture is damaged."""
    parser = CommandParser(prog="foveal data check", description="Open every picture once.")
    add_data_arguments(parser)
    parser.add_argument("--out", type=png_path, metavar="FILE", help="contact sheet to draw: PNG")
    args = parser.parse_args(argv)

    from foveal.data.check import check_classification
    from foveal.tasks.progress import reading_bar

    root, layout = root_and_layout(args)
    with reading_bar("opening every picture") as progress:
        report = check_classification(
            root,
            layout,
            labels=args.labels,
            domain=args.domain,
            multi_label=args.multi_label,
            progress=progress,
        )
    print(report)
    if args.out is not None:
        from foveal.cli.data_show import write_contact_sheet

        write_contact_sheet(args)
    return 2 if report.damaged else 0
