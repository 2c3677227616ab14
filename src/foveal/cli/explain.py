"""``foveal explain``: what in pictures speaks for an answer of a run's network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveal.cli.parser import CommandParser

METHODS = ("cam", "gradcam", "gradcam++", "scorecam", "attention", "rollout", "gates", "collapse")
OPTIONS = ("layer", "scales", "mirror", "region", "heads")


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = CommandParser(
        prog="foveal explain", description="Show what in pictures speaks for an answer."
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder")
    add("images", metavar="IMAGE", nargs="+", help="pictures, or folders of pictures")
    add("--method", default="gradcam", choices=METHODS)
    add(
        "--target",
        metavar="CLASS",
        nargs="+",
        help="names or numbers of classes, or all; default: the predicted one",
    )
    add("--layer", metavar="NAME", help="of class activation maps; default: the last map")
    add(
        "--scales",
        metavar="FACTOR",
        type=float,
        nargs="+",
        help="sizes at which class activation maps are made and averaged, such as 0.5 1 1.5",
    )
    add("--mirror", action="store_true", default=None, help="average with the mirror images' maps")
    add(
        "--region",
        choices=["all", "predicted"],
        help="in segmentation: the pixels whose logits are explained",
    )
    add("--heads", choices=["mean", "min", "max"], help="how attention and rollout join heads")
    add(
        "--faithfulness",
        action="store_true",
        help="also score each map by deletion and insertion of pixels",
    )
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    add("--out", required=True, metavar="DIR", help="folder for the results")
    args = parser.parse_args(argv)
    options: dict[str, Any] = {
        name: value for name in OPTIONS if (value := getattr(args, name)) is not None
    }

    from foveal.tasks.explanation_files import explain_files

    targets = args.target
    for path in explain_files(
        args.run,
        args.images,
        Path(args.out),
        method=args.method,
        target=targets[0] if targets and len(targets) == 1 else targets,
        device=args.device,
        faithfulness=args.faithfulness,
        **options,
    ):
        print(f"wrote {path}")
    return 0
