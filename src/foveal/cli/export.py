"""``foveal export``: a run as a file that others can use."""

from collections.abc import Sequence

from foveal.cli.parser import CommandParser


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = CommandParser(
        prog="foveal export", description="Write a run's network to a file and prove it equal."
    )
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--format", required=True, help="safetensors, torch or onnx")
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument("--image_size", type=int, help="side at which to trace; default: the run's")
    args = parser.parse_args(argv)

    from foveal.tasks.shipping import export

    print(export(args.run, args.format, args.out, image_size=args.image_size))
    return 0
