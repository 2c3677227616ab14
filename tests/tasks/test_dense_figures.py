"""Figures of networks that have learned nothing, over a few small pictures."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure as Canvas
from PIL import Image

from foveal.config import DenseConfig, DenseDataConfig, MapSetConfig
from foveal.metrics import MapScores
from foveal.tasks import dense_figures, make_setup
from foveal.tasks.dense_figures import (
    draw,
    draw_map,
    draw_precision_recall,
    draw_selections,
    iso_f,
    shrunk,
    spread,
)


@pytest.fixture
def canvases(monkeypatch):
    """Return a dict file name → canvas that is filled as figures are saved."""
    kept, save = {}, dense_figures.save_figure

    def keep(canvas, path, title, caption):
        kept[path.name] = canvas
        return save(canvas, path, title, caption)

    monkeypatch.setattr(dense_figures, "save_figure", keep)
    return kept


@pytest.fixture
def tested(tmp_path):
    """Return a function that makes a network for tasks, each with pictures of its own."""

    def make(tasks, count=10, scored=True, **model_args):
        rng = np.random.default_rng(0)
        for task in tasks:
            for folder in ("images", "masks"):
                (tmp_path / task / folder).mkdir(parents=True)
            for k in range(count):
                height, width = rng.integers(24, 40, 2)
                noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / task / "images" / f"{task}{k}.png")
                values = np.zeros((height, width), np.uint8)
                values[8:16, 8:16] = 255
                Image.fromarray(values).save(tmp_path / task / "masks" / f"{task}{k}.png")
        sets = {task: MapSetConfig(root=str(tmp_path / task)) for task in tasks}
        data = DenseDataConfig(image_size=32, workers=0, test_fraction=0.2, **sets)
        config = DenseConfig(
            data=data,
            backbone="test_efficientnet",
            model_args={"width": 16, **model_args},
            device="cpu",
        )
        torch.manual_seed(0)
        setup = make_setup(config)
        task = setup.task(training=False)
        task.scores.cut_at(3)
        pictures = setup.splits["test"]
        for index in range(len(pictures) if scored else 0):
            truths = {t: torch.from_numpy(m).round() for t, m in pictures.load(index)[1].items()}
            noisy = {t: (0.7 * m + 0.3 * torch.rand(m.shape)) for t, m in truths.items()}
            task.scores.update(torch.tensor(index), noisy, truths)
        return task, setup, task.scores.compute()

    return make


def test_every_set_is_among_the_pictures():
    assert spread((100, 1, 2), 8) == [0, 25, 50, 74, 99, 100, 101, 102]
    assert spread((1,), 8) == [0]
    assert spread((2, 1), 8) == [0, 1, 2]
    assert spread((5, 5), 3) == [0, 4, 5]


def test_thin_lines_remain_in_a_map_that_is_shrunk():
    values = np.zeros((7, 10), np.float32)
    values[3, 6] = 0.5
    assert shrunk(values, 10) is not values
    assert np.array_equal(shrunk(values, 10), values)
    small = shrunk(values, 3)
    assert small.shape == (3, 4)
    assert small[1, 2] == 0.5
    assert small.sum() == 0.5


@pytest.mark.parametrize("beta_squared", [1.0, 0.3])
def test_f_is_the_same_on_a_line(beta_squared):
    r = np.linspace(0.01, 1, 50)
    p = iso_f(r, 0.6, beta_squared)
    drawn = np.isfinite(p)
    assert 5 < drawn.sum() < 50
    f = (1 + beta_squared) * p * r / (beta_squared * p + r)
    assert f[drawn] == pytest.approx(0.6)
    # Elsewhere even perfect precision does not reach it.
    assert ((1 + beta_squared) * r / (beta_squared + r))[~drawn].max() < 0.6


def test_all_figures_of_sets_with_different_labels(tested, canvases, tmp_path):
    task, setup, _ = tested(("saliency", "edge", "skeleton"))
    figures = draw(task, setup, tmp_path)
    names = [figure.path.name for figure in figures]
    assert names == ["predictions.png", "precision_recall.png", "selections.png"]
    for figure in figures:
        with Image.open(figure.path) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    cells = np.reshape(canvases["predictions.png"].axes, (-1, 7))
    assert len(cells) == 6  # two of each set
    labels = [[bool(row[1 + 2 * k].images) for k in range(3)] for row in cells]
    assert labels == [[k == own for k in range(3)] for own in (0, 0, 1, 1, 2, 2)]
    assert cells[0][3].texts[0].get_text() == "no label"
    assert all(row[2 + 2 * k].images for row in cells for k in range(3))


def test_one_task_one_picture_and_no_selection(tested, canvases, tmp_path):
    task, setup, _ = tested(("edge",), count=3, selected=None)
    assert setup.size("test") == 1
    names = [figure.path.name for figure in draw(task, setup, tmp_path)]
    assert names == ["predictions.png", "precision_recall.png"]
    assert len(canvases["predictions.png"].axes) == 3
    assert len(canvases["precision_recall.png"].axes) == 1


def test_maps_that_are_no_numbers_are_white(tested, canvases, tmp_path):
    task, setup, _ = tested(("saliency", "skeleton"), count=3, scored=False)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.fill_(math.nan)
    assert len(draw(task, setup, tmp_path)) == 3
    cells = np.reshape(canvases["predictions.png"].axes, (-1, 5))
    assert all(np.all(row[k].images[0].get_array() == 0) for row in cells for k in (2, 4))
    titles = [axes.get_title() for axes in canvases["precision_recall.png"].axes]
    assert titles == ["saliency\nno score", "skeleton\nno score"]


def test_the_dots_are_the_best_f(tested, canvases, tmp_path):
    task, _, found = tested(("saliency", "edge"))
    draw_precision_recall(task.scores, tmp_path)
    best = {"saliency": (found["saliency/max_f"], 0.3), "edge": (found["edge/ods"], 1.0)}
    for axes, name in zip(canvases["precision_recall.png"].axes, best, strict=True):
        f, beta_squared = best[name]
        assert f > 0.1
        assert f"{f:.3f}" in axes.get_title()
        (r,), (p,) = axes.lines[-1].get_data()
        assert (1 + beta_squared) * p * r / (beta_squared * p + r) == pytest.approx(f)


def test_scores_of_nothing(tmp_path):
    scores = MapScores(("edge", "skeleton"), thresholds=1)
    scores.compute()
    assert draw_precision_recall(scores, tmp_path).path.is_file()


def test_selections_are_means_over_pictures(canvases, tmp_path):
    gates = torch.tensor([[[0.5, 0.3, 0.2]], [[0.1, 0.3, 0.6]]])  # 2 pictures, 1 scale, 3 levels
    figure = draw_selections({"edge": gates}, 1, (4, 8), tmp_path)
    weights, chosen = canvases["selections.png"].axes
    assert [text.get_text() for text in weights.texts] == ["0.30", "0.30", "0.40"]
    assert [text.get_text() for text in chosen.texts] == ["0.50", "0.00", "0.50"]
    names = [label.get_text() for label in chosen.get_xticklabels()]
    assert names == ["1\n1/4", "2\n1/8", "pyramid"]
    assert "over 2 test pictures" in figure.caption


def test_a_map_is_dark_on_white():
    axes = Canvas().subplots()
    draw_map(axes, np.array([[0, 1]], np.float32))
    pixels = axes.images[0].to_rgba(axes.images[0].get_array(), bytes=True)
    assert pixels[0, :, 0].tolist() == [255, 0]


def test_a_summary_names_the_scores_that_networks_are_compared_by(tested):
    task, _, found = tested(("saliency", "edge"))
    scores = {f"test/{name}": value for name, value in found.items()}
    main = task.main_scores(scores)
    assert list(main) == ["test/mean", "test/saliency/max_f", "test/edge/ods"]
    assert main["test/edge/ods"] == found["edge/ods"]


def test_the_mean_of_one_task_is_not_said_twice(tested):
    task, _, _ = tested(("edge",), count=3, scored=False)
    assert task.main_scores({"val/mean": 0.5, "val/edge/ods": 0.5}) == {"val/edge/ods": 0.5}
