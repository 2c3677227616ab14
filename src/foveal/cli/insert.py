"""``foveal insert``: put a layer into a network, see what it costs, keep it as a config."""

import argparse
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from foveal.cli import config_file
from foveal.cli.parser import CommandParser, add_entries
from foveal.config import from_dict
from foveal.files import replacing


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    args = _parser(argv).parse_args(argv)
    given: dict[str, dict[str, Any]] = {"model_args": {}, "layer_args": {}}
    for entry in args.entries:
        given[entry.key][entry.name] = entry.value()
    insertion = {
        "layer": args.layer,
        "where": args.where,
        "identity": config_file.parse(args.identity, "--identity"),
        "layer_args": given["layer_args"],
    }
    fragment = {"model": args.model, "model_args": given["model_args"], "insert": [insertion]}
    from_dict({"task": "classify", **fragment})  # names and types are those of a config

    from foveal.models import create_model
    from foveal.surgery import insert

    model = create_model(args.model, **given["model_args"])
    side = args.image_size
    size = None if side is None else (given["model_args"].get("in_chans", 3), side, side)
    print(
        insert(
            model,
            args.layer,
            where=args.where,
            identity=insertion["identity"],
            input_size=size,
            **given["layer_args"],
        )
    )
    if args.out is not None:
        text = StringIO()
        config_file.write(fragment, text)
        with replacing(Path(args.out)) as file:
            file.write_text(text.getvalue(), encoding="utf-8")
        print(f"wrote {args.out}; train it by: foveal train classify --config {args.out} ...")
    return 0


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="foveal insert",
        description="Put a layer into a network and show places and costs, before and after.",
    )
    parser.set_defaults(entries=[])
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="network, as for foveal train")
    add("--model_args", metavar=".KEY VALUE", help="argument of the network; may be repeated")
    add("--layer", required=True, metavar="NAME", help="coordinate, triplet, se, cbam, ...")
    add("--layer_args", metavar=".KEY VALUE", help="argument of the layer; may be repeated")
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
    add("--image_size", type=int, metavar="N", help="side of the pictures; default: the network's")
    add("--out", metavar="FILE", help="write the insertion as YAML for foveal train --config")
    for key in ("model_args", "layer_args"):
        add_entries(parser, key, argv)
    return parser
