"""``foveal eval``: the scores of a run, or of maps that another program wrote."""

import argparse
import os
import sys
from collections.abc import Sequence

from foveal.cli import eval_maps
from foveal.cli.parser import CommandParser, add_part, given_part
from foveal.config import SlidingConfig


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = CommandParser(
        prog="foveal eval",
        description="Score a run's best weights, or maps that another program wrote.",
        usage="foveal eval RUN [flags]\n       foveal eval --predictions DIR --task dense [flags]",
    )
    add = parser.add_argument
    add("run", metavar="RUN", nargs="?", help="run folder")
    add("--data.root", dest="root", help="data to score on; default: the run's own")
    add("--data.layout", dest="layout", help="layout of that data (default: auto)")
    add("--data.labels", dest="labels", help="which labels of several sets")
    add("--data.domain", dest="domain", help="which domain of several")
    add(
        "--split",
        default="test",
        choices=["train", "val", "test", "all"],
        help="which pictures (default: test); all is for --predictions",
    )
    add("--json", action="store_true", help="print the scores as JSON only")
    of_runs = parser.add_argument_group("only with RUN")
    _add_run_arguments(of_runs)
    of_maps = parser.add_argument_group("only with --predictions")
    eval_maps.add_map_arguments(of_maps)
    args = parser.parse_args(argv)
    if (args.run is None) == (args.predictions is None):
        raise ValueError(
            "give either RUN, a run folder, or --predictions DIR, a folder of maps"
            + (", not both" if args.run is not None else "")
        )
    if args.run is None:
        _refuse(of_runs, args, "a run, and --predictions is none")
        return eval_maps.run(args)
    _refuse(of_maps, args, f"--predictions, and {args.run} is a run")
    if args.split == "all":
        raise ValueError("--split all is for --predictions: score a run on train, val or test")
    return _score_run(args)


def _add_run_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--data.batch_size", dest="batch_size", type=int)
    group.add_argument("--data.workers", dest="reading_workers", type=int)
    group.add_argument("--data.on_error", dest="on_error", choices=["stop", "skip"])
    group.add_argument(
        "--fgsm",
        type=float,
        metavar="X",
        help="strength of the fast gradient sign attack, in picture values [0, 1]; 0 is off; "
        "default: the run's own",
    )
    add_part(group, SlidingConfig, "sliding.")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"])


def _refuse(group: argparse._ArgumentGroup, args: argparse.Namespace, reason: str) -> None:
    """Raise ValueError if a flag of a group was given."""
    for action in group._group_actions:
        if vars(args).get(action.dest) is not None:
            raise ValueError(f"{action.option_strings[0]} is for {reason}: leave it out")


def _score_run(args: argparse.Namespace) -> int:
    from foveal.tasks.evaluation import evaluate
    from foveal.tasks.run import to_json

    result = evaluate(
        args.run,
        root=args.root,
        layout=args.layout or "auto",
        labels=args.labels,
        domain=args.domain,
        split=args.split,
        batch_size=args.batch_size,
        workers=args.reading_workers,
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
