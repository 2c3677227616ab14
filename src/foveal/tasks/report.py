"""``report.html``: one self-contained page that tells what was run and what came out."""

import base64
import html
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from foveal.config import TrainConfig, task_of, to_dict
from foveal.data.label_pictures import legend
from foveal.tasks.run import write_text

INK, ACCENT, GOOD, BAD = "#1f2933", "#2563a8", "#2f855a", "#c0392b"

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2933; background: #f7f8fa; margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
.sub { color: #5b6673; margin: 0 0 1.5rem; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; }
.card { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; padding: .7rem 1.1rem; }
.card b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.card span { color: #5b6673; font-size: .85rem; }
figure { margin: 0 0 1.4rem; background: #fff; border: 1px solid #dfe3e8; border-radius: 8px;
         padding: 1rem; } figure img { max-width: 100%; display: block; margin: 0 auto; }
figcaption { color: #5b6673; font-size: .9rem; margin-top: .6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .15rem 1.2rem .15rem 0; border-bottom: 1px solid #e4e8ec; }
pre { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; padding: 1rem;
      overflow-x: auto; font-size: .85rem; }
"""


@dataclass(frozen=True)
class Figure:
    """A picture of the report.

    Attributes:
        path: PNG file.
        title: heading.
        caption: what it shows and how to read it.
    """

    path: Path
    title: str
    caption: str


def save_figure(canvas: Canvas, path: Path, title: str, caption: str) -> Figure:
    """Write a matplotlib figure as PNG; the caption tells of letters that the font lacks."""
    if not write_canvas(canvas, path):
        caption += " The font lacks letters of some names: boxes stand for them."
    return Figure(path, title, caption)


def write_canvas(canvas: Canvas, path: Path) -> bool:
    """Write a matplotlib figure as PNG; return whether its font had every letter.

    Matplotlib draws a box for a letter that it lacks and warns, once for each such letter.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", r"Glyph \d+", UserWarning)
        canvas.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    others = [warning for warning in caught if not str(warning.message).startswith("Glyph ")]
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return len(others) == len(caught)


def write_legend(names: Sequence[str], colors: NDArray[np.uint8], path: Path) -> None:
    """Write which colour stands for what as PNG.

    Args:
        names: K.
        colors: RGB of each, uint8 [K, 3].
        path: the file.
    """
    canvas = Canvas(figsize=(1, 1))
    handles = legend(names, colors)
    canvas.legend(handles=handles, loc="center", frameon=False, ncols=1 + len(handles) // 40)
    write_canvas(canvas, path)


def short(name: str, most: int = 14) -> str:
    """Return a name that fits beside a picture, its end cut off if need be."""
    return name if len(name) <= most else name[: most - 1] + "…"


def draw_curves(
    history: Sequence[Mapping[str, float]], main: Sequence[str], folder: Path
) -> Figure:
    """Draw loss and validation scores over the epochs.

    Args:
        history: a row per epoch.
        main: names of the validation scores; the first four that are shares of right answers are
            drawn.
        folder: where ``curves.png`` goes.
    """
    epochs = [row["epoch"] for row in history]
    scores = [key for key in main if key not in ("val/nll", "val/ece")]
    losses = [k for k in ("train/loss", "val/nll") if k in history[0]]
    canvas = Canvas(figsize=(9, 3.2), layout="constrained")
    for axes, keys in zip(canvas.subplots(1, 2), (losses, scores[:4]), strict=True):
        for key in keys:
            axes.plot(epochs, [row[key] for row in history], marker="o", markersize=3, label=key)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    caption = "Left: loss (the training loss includes augmentation). Right: validation scores."
    return save_figure(canvas, folder / "curves.png", "Training", caption)


def write_report(
    path: Path,
    config: TrainConfig,
    metrics: Mapping[str, float],
    figures: Sequence[Figure],
    *,
    data: str,
    environment: Mapping[str, Any],
    cards: Mapping[str, float],
    left_out: Sequence[str],
) -> None:
    """Write the page; every text is escaped and every picture is inside it.

    Args:
        path: the file.
        config: of the run.
        metrics: all numbers, for the table.
        figures: in their order.
        data: what the data is.
        environment: the machine.
        cards: numbers that stand at the top; the first eight do.
        left_out: complaints about damaged pictures.
    """
    title = f"{config.model} · {task_of(config)}"
    top = "".join(
        f'<div class="card"><b>{_number(value)}</b><span>{html.escape(key)}</span></div>'
        for key, value in list(cards.items())[:8]
    )
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{_number(value)}</td></tr>"
        for key, value in metrics.items()
    )
    pictures = "".join(_figure(figure) for figure in figures)
    skipped = ""
    if left_out:
        lines = html.escape("\n".join(left_out))
        skipped = f"<h2>Damaged pictures left out: {len(left_out)}</h2><pre>{lines}</pre>"
    settings = html.escape(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))
    machine = html.escape(json.dumps(environment, indent=2, ensure_ascii=False))
    write_text(
        path,
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body><main><h1>{html.escape(title)}</h1>
<p class="sub">seed {config.seed}</p>
<div class="cards">{top}</div>
<h2>Data</h2><pre>{html.escape(data)}</pre>{skipped}
{pictures}
<h2>Numbers</h2><table><tr><th>name</th><th>value</th></tr>{rows}</table>
<h2>Settings</h2><pre>{settings}</pre>
<h2>Machine</h2><pre>{machine}</pre>
</main></body></html>
""",
    )


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.path.read_bytes()).decode()
    title, caption = html.escape(figure.title), html.escape(figure.caption)
    image = f'<img src="data:image/png;base64,{data}" alt="{title}">'
    return f"<h2>{title}</h2><figure>{image}<figcaption>{caption}</figcaption></figure>"


def _number(value: float) -> str:
    if math.isnan(value):
        return "no score"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
