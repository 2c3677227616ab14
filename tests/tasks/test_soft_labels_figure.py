"""The picture of learned soft labels, and what a run needs to have one."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

import foveal
from foveal.tasks import soft_labels_figure
from foveal.tasks.soft_labels_figure import draw_soft_labels, similar_pairs
from foveal.tasks.training import Trainer

LABELS = torch.tensor(
    [[0.70, 0.25, 0.05], [0.02, 0.90, 0.08], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64
)


@pytest.fixture
def canvas(monkeypatch):
    """Return a list that gets each figure drawn."""
    kept = []
    original = soft_labels_figure.save_figure

    def keep(figure, *rest):
        kept.append(figure)
        return original(figure, *rest)

    monkeypatch.setattr(soft_labels_figure, "save_figure", keep)
    return kept


def test_pairs_by_hand():
    """Largest first, without the diagonal and without the class of which nothing was learned."""
    assert similar_pairs(LABELS.numpy()) == [(0, 1), (1, 2), (0, 2), (1, 0)]
    assert similar_pairs(LABELS.numpy(), most=1) == [(0, 1)]
    assert similar_pairs(np.zeros((4, 4))) == []
    assert similar_pairs(np.eye(4)) == []
    assert similar_pairs(np.array([[0.9, 0.1], [0.5, 0.5]])) == [(0, 1)]


def test_the_diagonal_has_its_own_column_and_the_rest_its_own_scale(canvas, tmp_path):
    figure = draw_soft_labels(LABELS, ("Shirt", "T-shirt/top", "$x_$"), tmp_path)
    heat = canvas[0].axes[0]
    (image,) = heat.images
    assert image.get_clim() == (0, 0.25)
    shown = image.get_array()
    assert shown.mask.tolist() == [[True, False, False], [False, True, False], [True] * 3]
    assert shown[0, 1] == 0.25
    names = [text.get_text() for text in heat.get_yticklabels()]
    assert names == ["Shirt", "T-shirt/top", "$x_$"]
    own, bars = heat.child_axes[1:]
    assert [text.get_text() for text in own.texts] == ["0.70", "0.90", "0.33"]
    assert [bar.get_width() for bar in bars.patches] == [0.25, 0.08, 0.05, 0.02]
    assert bars.texts[0].get_text() == "Shirt → T-shirt/top 0.250"
    end = "Most similar: Shirt → T-shirt/top 0.250, T-shirt/top → $x_$ 0.080, Shirt → $x_$ 0.050."
    assert figure.caption.endswith(end)


@pytest.mark.parametrize("fill", [0.0, 0.1])
def test_nothing_learned_yet(fill, tmp_path):
    figure = draw_soft_labels(torch.full((10, 10), fill), [str(k) for k in range(10)], tmp_path)
    assert "Most similar" not in figure.caption


def test_many_classes_are_drawn_without_their_names(canvas, tmp_path):
    torch.manual_seed(0)
    labels = torch.randn(100, 100).softmax(1)
    figure = draw_soft_labels(labels, [f"class {k}" for k in range(100)], tmp_path)
    heat = canvas[0].axes[0]
    assert not any("class" in text.get_text() for text in heat.get_yticklabels())
    own, bars = heat.child_axes[1:]
    assert not own.texts
    assert len(bars.patches) == 10
    largest = (labels * (1 - torch.eye(100))).max().item()
    assert bars.patches[0].get_width() == pytest.approx(largest)
    with Image.open(figure.path) as image:
        assert 500 < min(image.size) < max(image.size) < 2000


@pytest.fixture
def learning(config, replaced):
    augment = foveal.config.AugmentConfig(min_scale=1.0)
    loss = "online_label_smoothing"
    return replaced(config, loss=loss, augment=augment, epochs=4, lr=1e-2, ema=False)


def told(run):
    """Return what the report says of the most similar classes."""
    page = (run.path / "report.html").read_text(encoding="utf-8")
    return re.search(r"Most similar: ([^<]*)\.", page)[1]


def test_a_run_draws_what_its_loss_has_learned(learning, replaced, tmp_path):
    run = foveal.train(learning)
    assert (run.path / "figures" / "soft_labels.png").exists()
    state = torch.load(run.path / "last.ckpt", weights_only=True)["state_dict"]
    labels = state["loss.soft_labels"].double()
    true, other = similar_pairs(labels.numpy())[0]
    names = ("amber", "blue", "coral")
    assert told(run).startswith(f"{names[true]} → {names[other]} {labels[true, other]:.3f}")
    plain = foveal.train(replaced(learning, loss="cross_entropy", out=str(tmp_path / "plain")))
    assert not (plain.path / "figures" / "soft_labels.png").exists()
    assert (plain.path / "figures" / "reliability.png").exists()


def test_a_run_stopped_in_its_test_still_has_them(learning, replaced, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise SystemExit(1)  # what Lightning makes of Ctrl-C

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "test", interrupted)
        with pytest.raises(foveal.tasks.checkpointing.RunInterrupted):
            foveal.train(learning)
    run = foveal.train(learning, resume=True)
    whole = foveal.train(replaced(learning, out=str(tmp_path / "whole")))
    assert told(run) == told(whole)
