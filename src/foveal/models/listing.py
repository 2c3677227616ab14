"""Networks as a table: what they cost, beside what their papers say."""

from fnmatch import fnmatchcase

import torch

from foveal.models import count, create_model, list_models
from foveal.models.published import PUBLISHED
from foveal.names import unknown

DEFAULT_SIZE = (3, 224, 224)


def table(pattern: str = "*", *, task: str | None = None, published: bool = False) -> str:
    """Return a text table of networks: input, parameters and multiply-adds.

    Args:
        pattern: glob over names; ``*`` lists foveal's own, others find timm's too.
        task: only networks for this task.
        published: add the papers' figures, and show only networks that have some.

    Raises:
        ValueError: no network matches, with the nearest name; or a task that is unknown or has
            no networks.
    """
    names = list_models(pattern, task=task)
    if published:
        fit = set(list_models("?*", task=task))
        names = [name for name in PUBLISHED if name in fit and fnmatchcase(name, pattern)]
    if not names:
        if not list_models(task=task):
            raise ValueError(f"there are no networks for the task {task} in this version")
        if published and (found := list_models(pattern, task=task)):
            raise ValueError(
                f"no published figures are known here of {', '.join(found[:5])}"
                f"{' and others' if len(found) > 5 else ''}: leave published out"
            )
        known = [*list_models(task=task), *list_models("?*", task=task)]
        raise ValueError(unknown("model", pattern, known))
    head = ["name", "input", "parameters", "multiply-adds"]
    if published:
        head += ["published", "", "top-1", "source"]
    rows = [head, *(_row(name, published) for name in names)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ("  ".join(f"{c:<{w}}" for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)
    return "\n".join(lines)


def _row(name: str, published: bool) -> list[str]:
    with torch.device("meta"):
        model = create_model(name)
    size = tuple(getattr(model, "default_cfg", {}).get("input_size", DEFAULT_SIZE))
    counts = count(model, (size[0], size[1], size[2]))
    row = [
        name,
        "x".join(str(n) for n in size),
        f"{counts.parameters / 1e6:.3f} M",
        f"{counts.multiply_adds / 1e6:.1f} M",
    ]
    if published:
        paper = PUBLISHED[name]
        arithmetic = "" if paper.multiply_adds is None else f"{paper.multiply_adds:g} M"
        row += [f"{paper.parameters:g} M", arithmetic, f"{paper.top1:.3f}"]
        row.append(paper.source)
    return row
