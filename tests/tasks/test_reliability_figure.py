"""The reliability diagram shows the bins that the calibration error is made of."""

import math

import pytest
import torch
from PIL import Image

from foveal.metrics import expected_calibration_error
from foveal.tasks import reliability_figure
from foveal.tasks.reliability_figure import draw_reliability


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Return a function that draws, and gives the figure's two axes and its caption."""

    def draw(confidence, correct):
        kept = []
        original = reliability_figure.save_figure

        def keep(canvas, *rest):
            kept.append(canvas)
            return original(canvas, *rest)

        monkeypatch.setattr(reliability_figure, "save_figure", keep)
        figure = draw_reliability(confidence, correct, tmp_path)
        with Image.open(figure.path) as image:
            assert min(image.size) > 400
        return *kept[0].axes, figure.caption

    return draw


def boxes(bars):
    return [(round(b.get_x(), 6), round(b.get_y(), 6), round(b.get_height(), 6)) for b in bars]


def test_bars_gaps_and_shares(drawn):
    """Three pictures at 0.9, one of them right, and one at 0.5 that is right."""
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.5], dtype=torch.float64)
    correct = torch.tensor([1.0, 0.0, 0.0, 1.0])
    upper, lower, caption = drawn(confidence, correct)
    accuracy, too_sure, too_modest = upper.containers
    ninth, seventh = round(13 / 15, 6), round(7 / 15, 6)
    assert boxes(accuracy) == [(seventh, 0, 1), (ninth, 0, round(1 / 3, 6))]
    assert boxes(too_sure) == [(ninth, round(1 / 3, 6), round(0.9 - 1 / 3, 6))]
    assert boxes(too_modest) == [(seventh, 0.5, 0.5)]
    shares = [height for _, _, height in boxes(*lower.containers)]
    assert shares == [0] * 7 + [0.25] + [0] * 5 + [0.75] + [0]
    means = {line.get_label(): line.get_xdata()[0] for line in lower.lines}
    assert means == pytest.approx({"mean confidence": 0.8, "mean accuracy": 0.5})
    ece = expected_calibration_error(confidence, correct)
    assert ece == pytest.approx(0.75 * (0.9 - 1 / 3) + 0.25 * 0.5)
    assert upper.get_title() == f"expected calibration error {ece:.4f} (15 bins)"
    assert "finite" not in caption


def test_the_gaps_weighted_by_the_shares_are_the_error(drawn):
    torch.manual_seed(0)
    confidence = torch.rand(500, dtype=torch.float64)
    correct = (torch.rand(500) < confidence**2).double()
    upper, lower, _ = drawn(confidence, correct)
    share = {x: height for x, _, height in boxes(*lower.containers)}
    gaps = [box for bars in upper.containers[1:] for box in boxes(bars)]
    drawn_error = sum(share[x] * height for x, _, height in gaps)
    assert drawn_error == pytest.approx(expected_calibration_error(confidence, correct), abs=1e-5)


@pytest.mark.parametrize("sure", [1.0, math.nan])
def test_one_bin_or_none(drawn, sure):
    upper, _, caption = drawn(torch.full((3,), sure).double(), torch.ones(3).double())
    assert len(upper.containers) == 1  # no gap, so no legend of one
    assert ("no finite answer: 3" in caption) == math.isnan(sure)
    assert upper.get_title().startswith(f"expected calibration error {sure - 1:.4f}")
