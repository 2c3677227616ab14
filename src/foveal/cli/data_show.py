"""``foveal data show``: a contact sheet of a data set."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foveal.cli.data import add_data_arguments, png_path, root_and_layout, task_meant
from foveal.cli.parser import CommandParser

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = CommandParser(
        prog="foveal data show",
        description="Draw pictures with their classes, masks or maps; of scenes, all labels.",
    )
    add_data_arguments(parser)
    parser.add_argument("--split", default="train", choices=["train", "val", "test"])
    parser.add_argument("--count", type=int, default=24, help="number of pictures")
    parser.add_argument("--seed", type=int, default=0, help="of their draw")
    parser.add_argument(
        "--out", type=png_path, metavar="FILE", default=Path("contact_sheet.png"), help="PNG"
    )
    write_contact_sheet(parser.parse_args(argv))
    return 0


def write_contact_sheet(args: argparse.Namespace) -> None:
    """Draw the sheet, write it to ``args.out`` and say so."""
    from foveal.files import replacing
    from foveal.tasks.report import write_canvas

    canvas = _draw(args)
    with replacing(args.out) as path:
        write_canvas(canvas, path)
    print(f"wrote {args.out}")


def _draw(args: argparse.Namespace) -> "Figure":
    root, layout = root_and_layout(args)
    options = {name: getattr(args, name) for name in ("split", "count", "seed") if name in args}
    task = task_meant(args)
    if task == "dense":
        from foveal.data.dense import read_dense
        from foveal.data.map_sheet import map_sheet

        mapped = read_dense(root, layout, task=args.labels, domain=args.domain)
        return map_sheet(mapped, **options)
    if task == "segment":
        from foveal.data.mask_sheet import mask_sheet
        from foveal.data.segmentation import read_segmentation

        masked = read_segmentation(root, layout, labels=args.labels, domain=args.domain)
        return mask_sheet(masked, **options)
    from foveal.data.classification import read_classification
    from foveal.data.contact_sheet import contact_sheet

    data = read_classification(
        root, layout, labels=args.labels, domain=args.domain, multi_label=args.multi_label
    )
    return contact_sheet(data, **options)
