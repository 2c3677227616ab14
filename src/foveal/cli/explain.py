"""``foveal explain``: what in pictures speaks for an answer of a run's network."""

from collections.abc import Sequence
from pathlib import Path

from foveal.cli.parser import CommandParser

METHODS = ("cam", "gradcam", "gradcam++", "scorecam", "attention", "rollout", "gates", "collapse")


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = CommandParser(
        prog="foveal explain", description="Show what in pictures speaks for an answer."
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder")
    add("images", metavar="IMAGE", nargs="+", help="pictures, or folders of pictures")
    add("--method", default="gradcam", choices=METHODS)
    add("--target", metavar="CLASS", help="name or number of a class; default: the predicted one")
    add("--layer", metavar="NAME", help="of class activation maps; default: the last map")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    add("--out", required=True, metavar="DIR", help="folder for the results")
    args = parser.parse_args(argv)

    from foveal.tasks.explaining import explain_files

    target = args.target
    for path in explain_files(
        args.run,
        args.images,
        Path(args.out),
        method=args.method,
        target=int(target) if target is not None and target.isdecimal() else target,
        layer=args.layer,
        device=args.device,
    ):
        print(f"wrote {path}")
    return 0
