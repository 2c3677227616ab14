"""``foveal predict``: what a run says about pictures."""

import sys
from collections.abc import Sequence

from foveal.cli.parser import CommandParser, add_part, given_part, words
from foveal.config import InferenceConfig, SlidingConfig


def run(argv: Sequence[str]) -> int:
    """Run the command; status 2 if a picture did not open (the others are predicted)."""
    parser = CommandParser(prog="foveal predict", description="Say what pictures show.")
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("images", metavar="IMAGE_OR_FOLDER", nargs="+")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--tasks", metavar="A,B", type=words, help="which maps (default: all that the run learned)"
    )
    add_part(parser, InferenceConfig, "inference.")
    add_part(parser, SlidingConfig, "sliding.")
    args = parser.parse_args(argv)

    from foveal.tasks.prediction import predict

    predictions = predict(
        args.run,
        args.images,
        device=args.device,
        on_error="skip",
        tasks=args.tasks,
        sliding=given_part(args, SlidingConfig, "sliding."),
        inference=given_part(args, InferenceConfig, "inference."),
    )
    for item in predictions[:20]:
        print(item)
    if len(predictions) > 20:
        print(f"... and {len(predictions) - 20} more")
    for path in predictions.save(args.out):
        print(f"wrote {path}")
    for complaint in predictions.damaged:
        print(f"foveal: error: {complaint}", file=sys.stderr)
    return 2 if predictions.damaged else 0
