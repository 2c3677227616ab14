import math

import pytest

from foveal.config import DenseConfig
from foveal.tasks import report
from foveal.tasks.report import draw_curves, write_report


def test_curves_are_those_of_the_main_scores(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(report, "write_canvas", lambda canvas, path: kept.append(canvas) or True)
    row = {"train/loss": 1.0, "val/nll": 2.0, "val/mean": 0.5, "val/edge/ods": math.nan}
    history = [{"epoch": 1, "val/edge/r50": 0.1, **row}, {"epoch": 2, "val/edge/r50": 0.1, **row}]
    draw_curves(history, ["val/nll", "val/mean", "val/edge/ods"], tmp_path)
    left, right = kept[0].axes
    assert [line.get_label() for line in left.lines] == ["train/loss", "val/nll"]
    assert [line.get_label() for line in right.lines] == ["val/mean", "val/edge/ods"]


@pytest.mark.parametrize(("value", "text"), [(0.25, "0.2500"), (math.nan, "no score")])
def test_cards_are_those_given_and_the_table_has_all(tmp_path, value, text):
    metrics = {"test/edge/ods": value, "test/edge/r50": 0.5, "epoch": 3}
    write_report(
        tmp_path / "report.html",
        DenseConfig(),
        metrics,
        [],
        data="",
        environment={},
        cards={"test/edge/ods": value},
        left_out=(),
    )
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="card"') == 1
    assert f"<b>{text}</b><span>test/edge/ods</span>" in page
    assert "<td>test/edge/r50</td><td>0.5000</td>" in page
    assert "<td>epoch</td><td>3</td>" in page
