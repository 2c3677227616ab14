"""``foveal data``: look at data before training on it."""

from collections.abc import Sequence

from foveal.cli.parser import CommandParser


def run(argv: Sequence[str]) -> int:
    """Run the command; status 2 if a picture is damaged."""
    parser = CommandParser(prog="foveal data check", description="Open every picture once.")
    parser.add_argument(
        "root", metavar="DIR", help="folder or .csv file; or a built-in set, such as fashion"
    )
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--labels", help="which labels, where the layout has several sets")
    parser.add_argument("--domain", help="which domain, where the layout has several")
    parser.add_argument("--multi_label", action="store_true")
    args = parser.parse_args(argv)

    from foveal.data.check import check_classification
    from foveal.data.layouts import LAYOUTS
    from foveal.tasks.progress import reading_bar

    built_in = args.root in LAYOUTS and LAYOUTS[args.root].built_in
    root, layout = (None, args.root) if built_in else (args.root, args.layout)
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
    return 2 if report.damaged else 0
