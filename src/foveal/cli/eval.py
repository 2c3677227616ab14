"""``foveal eval``: the scores of a run."""

import os
import sys
from collections.abc import Sequence

from foveal.cli.parser import CommandParser, add_part, given_part
from foveal.config import SlidingConfig


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = CommandParser(prog="foveal eval", description="Score a run's best weights.")
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--data.root", dest="root", help="data to score on; default: the run's own")
    parser.add_argument("--data.layout", dest="layout", default="auto", help="layout of that data")
    parser.add_argument("--data.labels", dest="labels", help="which labels of several sets")
    parser.add_argument("--data.domain", dest="domain", help="which domain of several")
    parser.add_argument("--data.batch_size", dest="batch_size", type=int)
    parser.add_argument("--data.workers", dest="workers", type=int)
    parser.add_argument("--data.on_error", dest="on_error", choices=["stop", "skip"])
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument(
        "--fgsm",
        type=float,
        metavar="X",
        help="strength of the fast gradient sign attack, in picture values [0, 1]; 0 is off; "
        "default: the run's own",
    )
    add_part(parser, SlidingConfig, "sliding.")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--json", action="store_true", help="print the scores as JSON only")
    args = parser.parse_args(argv)

    from foveal.tasks.evaluation import evaluate
    from foveal.tasks.run import to_json

    result = evaluate(
        args.run,
        root=args.root,
        layout=args.layout,
        labels=args.labels,
        domain=args.domain,
        split=args.split,
        batch_size=args.batch_size,
        workers=args.workers,
        on_error=args.on_error,
        device=args.device,
        fgsm=args.fgsm,
        sliding=given_part(args, SlidingConfig, "sliding."),
    )
    if os.environ.get("RANK", "0") != "0":  # under torchrun, every process has the same result
        return 0
    for complaint in result.left_out:
        print(f"left out: {complaint}", file=sys.stderr)
    for remark in result.remarks:
        print(remark, file=sys.stderr)
    if args.json:
        print(to_json(result.scores))
        return 0
    print(f"{result.pictures:,d} pictures of split {args.split}: {result.origin}")
    for name, value in result.scores.items():
        print(f"{name:20s} {value:.4f}")
    return 0
