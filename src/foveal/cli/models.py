"""``foveal models``: the networks by name."""

from collections.abc import Sequence

from foveal.cli.parser import CommandParser


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = CommandParser(prog="foveal models", description="List networks with their sizes.")
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="*", help="a glob")
    parser.add_argument("--task", help="classify, segment, detect or dense")
    parser.add_argument("--published", action="store_true", help="beside the papers' sizes")
    args = parser.parse_args(argv)

    from foveal.models.listing import table

    print(table(args.pattern, task=args.task, published=args.published))
    return 0
