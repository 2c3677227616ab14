"""``foveal data``: look at data before training on it."""

from collections.abc import Sequence

from foveal.cli.parser import CommandParser


def run(argv: Sequence[str]) -> int:
    """Run the command; status 2 if a picture is damaged."""
    parser = CommandParser(prog="foveal data check", description="Open every picture once.")
    parser.add_argument(
        "root", metavar="DIR", help="folder or .csv file; fashion: the built-in set"
    )
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--multi_label", action="store_true")
    args = parser.parse_args(argv)

    from foveal.data.check import check_classification
    from foveal.tasks.progress import reading_bar

    with reading_bar("opening every picture") as progress:
        report = check_classification(
            None if args.root == "fashion" else args.root,
            args.layout,
            multi_label=args.multi_label,
            progress=progress,
        )
    print(report)
    return 2 if report.damaged else 0
