"""The pictures of a classification run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure as Canvas
from PIL import Image
from torch import Tensor

from foveal.explanation import attention_collapse
from foveal.layers import has_attention_maps
from foveal.metrics import ClassificationScores, MultiLabelScores
from foveal.tasks.collapse_figure import draw_collapse
from foveal.tasks.confusion_figure import MOST_CLASSES_DRAWN, draw_confusion
from foveal.tasks.gate_figures import GATE_PICTURES, draw_gates
from foveal.tasks.reliability_figure import draw_reliability
from foveal.tasks.report import BAD, GOOD, Figure, save_figure, short
from foveal.tasks.soft_labels_figure import draw_soft_labels

if TYPE_CHECKING:
    from foveal.tasks.classify import ClassifySetup, ClassifyTask

PREDICTIONS_DRAWN, MISTAKES_DRAWN, COLLAPSE_MEASURED = 24, 16, 32


def draw(task: "ClassifyTask", setup: "ClassifySetup", folder: Path) -> list[Figure]:
    """Draw what a tested classifier does, and return the figures in the report's order."""
    scores = task.scores
    figures = []
    if isinstance(scores, ClassificationScores):
        target, prediction = scores.column("target").long(), scores.column("prediction").long()
        confidence = scores.column("confidence").nan_to_num(0)
        shown = _spread(len(target), PREDICTIONS_DRAWN)
        wrong = (target != prediction).nonzero()[:, 0]
        wrong = wrong[confidence[wrong].argsort(descending=True)][:MISTAKES_DRAWN]
        figures.append(
            save_figure(
                _grid(setup, shown, target, prediction, confidence),
                folder / "predictions.png",
                "Test pictures",
                "What the network says and how sure it is; wrong answers in red with the truth.",
            )
        )
        if len(wrong):
            figures.append(
                save_figure(
                    _grid(setup, wrong, target, prediction, confidence),
                    folder / "mistakes.png",
                    "Surest mistakes",
                    "The wrong answers in which the network was surest, surest first.",
                )
            )
        if len(setup.classes) <= MOST_CLASSES_DRAWN:
            counts = scores.confusion(len(setup.classes))
            figures.append(draw_confusion(counts, setup.classes, folder))
        right = (target == prediction).double()
        figures.append(draw_reliability(scores.column("confidence"), right, folder))
        figures += [
            draw_soft_labels(loss.soft_labels, setup.classes, folder)
            for loss in task.collecting_losses()
        ]
    elif isinstance(scores, MultiLabelScores):
        figures.append(_multi_label_grid(scores, setup, folder))
    shown = _spread(setup.size("test"), GATE_PICTURES)
    pictures = [_picture(setup, index) for index in shown.tolist()]
    figures += draw_gates(task.evaluated_model, setup.preprocess, pictures, folder)
    collapse = _collapse(task, setup, folder)
    return figures if collapse is None else [*figures, collapse]


def _spread(size: int, most: int) -> Tensor:
    """Return up to ``most`` indices, evenly spread over ``size``."""
    return torch.linspace(0, size - 1, min(size, most)).round().long()


def _picture(setup: "ClassifySetup", index: int) -> Image.Image:
    return setup.splits["test"].load(index)


def _grid(
    setup: "ClassifySetup",
    indices: Tensor,
    target: Tensor,
    prediction: Tensor,
    confidence: Tensor,
) -> Canvas:
    """Return pictures with the predicted class above, and the true one where it differs."""
    columns = 8
    rows = -(-len(indices) // columns)
    canvas = Canvas(figsize=(columns * 1.35, rows * 1.75), layout="constrained")
    cells = canvas.subplots(rows, columns, squeeze=False).flatten()
    for axes in cells:
        axes.axis("off")
    for axes, index in zip(cells, indices.tolist(), strict=False):
        right = bool(target[index] == prediction[index])
        answer = int(prediction[index])  # -1: the logits were not finite
        said = short(setup.classes[answer]) if answer >= 0 else "no answer"
        text = f"{said}\n{confidence[index]:.0%}"
        if not right:
            text += f", is {short(setup.classes[int(target[index])])}"
        axes.imshow(_picture(setup, index))
        axes.set_title(text, fontsize=8, color=GOOD if right else BAD, parse_math=False)
    return canvas


def _multi_label_grid(scores: MultiLabelScores, setup: "ClassifySetup", folder: Path) -> Figure:
    probability, target = scores.probabilities, scores.truth
    indices = _spread(len(target), MISTAKES_DRAWN)
    canvas = Canvas(figsize=(9, 2.4 * -(-len(indices) // 4)), layout="constrained")
    cells = canvas.subplots(-(-len(indices) // 4), 4, squeeze=False).flatten()
    for axes in cells:
        axes.axis("off")
    for axes, index in zip(cells, indices.tolist(), strict=False):
        right = bool(((probability[index] > 0.5) == (target[index] > 0.5)).all())
        axes.imshow(_picture(setup, index))
        axes.set_title(
            f"says {_names(setup.classes, probability[index])}\n"
            f"is {_names(setup.classes, target[index])}",
            fontsize=7,
            color=GOOD if right else BAD,
            parse_math=False,
        )
    caption = "Classes with probability above 0.5, and the true ones; green where all agree."
    return save_figure(canvas, folder / "predictions.png", "Test pictures", caption)


def _names(classes: Sequence[str], present: Tensor) -> str:
    names = [short(classes[int(k)], 10) for k in (present > 0.5).nonzero()[:, 0]]
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "") if names else "none"


def _collapse(task: "ClassifyTask", setup: "ClassifySetup", folder: Path) -> Figure | None:
    """Draw how alike the blocks of a vision transformer are; None for other networks."""
    model = task.evaluated_model
    if sum(map(has_attention_maps, model.modules())) < 2:
        return None
    parameter = next(model.parameters())
    indices = _spread(setup.size("test"), COLLAPSE_MEASURED)
    pictures = [setup.preprocess(_picture(setup, index)) for index in indices.tolist()]
    x = torch.stack(pictures).to(parameter.device, parameter.dtype)
    return draw_collapse(attention_collapse(model, [x], at_once=1), folder)
