"""``foveal insert``: put a layer into a network, see what it costs, keep it as a config."""

import argparse
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from foveal.cli import config_file
from foveal.cli.parser import CommandParser, add_entries
from foveal.config import TrainConfig, from_dict, to_dict
from foveal.files import replacing

MAPPINGS = ("model_args", "layer_args")


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    args = _parser(argv).parse_args(argv)
    out = None if args.out is None else Path(args.out)
    if out is not None and out.is_dir():
        raise IsADirectoryError(f"--out {out} is a folder: name a file, such as {out / 'se.yaml'}")
    if args.image_size is not None and args.image_size < 1:
        raise ValueError(f"--image_size must be at least 1, not {args.image_size}")
    config = _config(args)

    from foveal.models import create_model
    from foveal.surgery import insert
    from foveal.tasks.run import check_model_args

    check_model_args(config)
    model = create_model(config.model, **config.model_args)  # type: ignore[arg-type]
    side, (insertion,) = args.image_size, config.insert
    channels = 1 if config.model_args.get("in_chans") == 1 else 3
    size = None if side is None else (channels, side, side)
    report = insert(
        model,
        insertion.layer,
        where=insertion.where,
        identity=insertion.identity,
        input_size=size,
        **insertion.layer_args,
    )
    print(report)
    if out is not None:
        _write(config, out)
        print(f"wrote {out}; train it by: foveal train classify --config {out} ...")
    return 0


def _config(args: argparse.Namespace) -> TrainConfig:
    """Return a config with the network and the insertion, so that both are held to its types."""
    given: dict[str, dict[str, Any]] = {}
    for key in MAPPINGS:
        value = config_file.parse(getattr(args, key), f"--{key}")
        if not isinstance(value, dict):
            raise ValueError(f"--{key} must hold keys, such as '{{reduction: 16}}', not {value!r}")
        given[key] = value
    for entry in args.entries:
        given[entry.key][entry.name] = entry.value()
    if (identity := config_file.parse(args.identity, "--identity")) not in (True, False):
        raise ValueError(f"--identity must be true or false, not {identity!r}")
    insertion = {
        "layer": args.layer,
        "where": args.where,
        "identity": identity,
        "layer_args": given["layer_args"],
    }
    return from_dict(
        {
            "task": "classify",
            "model": args.model,
            "model_args": given["model_args"],
            "insert": [insertion],
        }
    )


def _write(config: TrainConfig, out: Path) -> None:
    """Write the part of the config that the command is about."""
    values = to_dict(config)
    text = StringIO()
    config_file.write({key: values[key] for key in ("model", "model_args", "insert")}, text)
    with replacing(out) as file:
        file.write_text(text.getvalue(), encoding="utf-8")


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="foveal insert",
        description="Put a layer into a network and show places and costs, before and after.",
    )
    parser.set_defaults(entries=[])
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="network, as for foveal train")
    add(
        "--layer",
        required=True,
        metavar="NAME",
        help="coordinate, triplet, se, cbam, ..., reattention",
    )
    add(
        "--where",
        required=True,
        metavar="PATTERN",
        help="blocks, stages, expand, or a pattern over module names: layer[34].*",
    )
    add(
        "--identity",
        nargs="?",
        const="true",
        default="false",
        metavar="true|false",
        help="start at identity: trained weights compute what they did before",
    )
    for key in MAPPINGS:
        text = f"further arguments of the {key[:5]}; one alone: --{key}.KEY VALUE"
        add(f"--{key}", default="{}", metavar="{KEY: VALUE}", help=text)
        add_entries(parser, key, argv)
    add("--image_size", type=int, metavar="N", help="side of the pictures; default: the network's")
    add("--out", metavar="FILE", help="write the insertion as YAML for foveal train --config")
    return parser
