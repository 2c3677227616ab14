"""Gates drawn over pictures, of networks that have learned nothing."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from PIL import Image
from torch import nn

import foveal
from foveal.config import Insertion
from foveal.data.transforms import Preprocess, WholePreprocess
from foveal.explanation import Gates, read_gates
from foveal.layers import (
    CoordinateAttention,
    ReAttention,
    SelectiveIntegration,
    SqueezeExcite,
    StripPooling,
    TripletAttention,
)
from foveal.tasks import gate_figures
from foveal.tasks.gate_figures import (
    choices_canvas,
    draw_gates,
    draw_over,
    drawable,
    gate_canvas,
    theta_canvas,
)


@pytest.fixture
def canvases(monkeypatch):
    """Return a dict file name → canvas that is filled as figures are saved."""
    kept, save = {}, gate_figures.save_figure

    def keep(canvas, path, title, caption):
        kept[path.name] = canvas
        return save(canvas, path, title, caption)

    monkeypatch.setattr(gate_figures, "save_figure", keep)
    return kept


def noise(count, height=24, width=24):
    rng = np.random.default_rng(0)
    shape = (height, width, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, np.uint8)) for _ in range(count)]


def test_every_kind_of_map_is_drawn_in_the_order_of_the_layers(canvases, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        CoordinateAttention(8),
        SqueezeExcite(8),
        TripletAttention(),
        StripPooling(8),
    )
    preprocess = WholePreprocess(image_size=24)
    pictures = [*noise(1), *noise(1, 30, 20)]  # of two sizes
    (figure,) = draw_gates(network, preprocess, pictures, tmp_path)
    assert figure.path == tmp_path / "gates.png"
    with Image.open(figure.path) as drawn:
        assert np.asarray(drawn.convert("L")).std() > 5
    *cells, bar = canvases["gates.png"].axes
    assert len(cells) == 2 * 5
    titles = [axes.get_title() for axes in cells[:5]]
    assert titles == [
        "",
        "1\n12 by 12",
        "3\nmean gate, 12 by 12",
        "3\nheight-width gate",
        "4\n12 by 12",
    ]
    assert [len(axes.child_axes) for axes in cells[5:]] == [0, 2, 2, 0, 0]
    x = preprocess(pictures[1])[None]
    coordinate, _, triplet, _ = read_gates(network, x)
    for axes, gates in ((cells[6], coordinate), (cells[7], triplet)):
        top, side = axes.child_axes
        np.testing.assert_allclose(top.lines[0].get_ydata(), gates.columns[0])
        np.testing.assert_allclose(-side.lines[0].get_xdata(), gates.rows[0])
        low, high = (float(v) for v in gates.map.aminmax())
        first, last = (float(text) for text in axes.get_xlabel().split(" to "))
        assert first == pytest.approx(low, abs=0.006)
        assert last == pytest.approx(high, abs=0.006)
        assert first < last
        assert axes.images[1].get_array().shape == (30, 20)
        assert axes.images[1].get_clim() == pytest.approx((low, high))
    assert [label.get_text() for label in bar.get_xticklabels()] == ["lowest", "highest"]
    for words in ("The curves are the mean gates", "Of triplet attention"):
        assert words in figure.caption


def test_captions_tell_of_nothing_that_is_not_drawn(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), StripPooling(8))
    (figure,) = draw_gates(network, Preprocess(image_size=16), noise(1), tmp_path)
    assert "curves" not in figure.caption
    assert "triplet" not in figure.caption


def test_maps_are_enlarged_with_half_pixel_centres():
    axes = Canvas().subplots()
    draw_over(axes, np.zeros((2, 4, 3), np.float32), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert axes.images[1].get_array().tolist() == [[0, 0.25, 0.75, 1]] * 2
    assert axes.get_xlabel() == "0.00 to 1.00"


@pytest.mark.parametrize(
    ("values", "text"),
    [((0.5, 0.5), "0.50 to 0.50"), ((0.2531, 0.2538), "0.25310 to 0.25380")],
)
def test_ranges_have_as_many_digits_as_they_need(values, text):
    axes = Canvas().subplots()
    draw_over(axes, np.ones((3, 3, 1), np.float32), torch.tensor([values]))
    assert axes.get_xlabel() == text


def test_no_more_columns_than_a_page_takes():
    def gates(name, count, size=6, **parts):
        one = Gates(name, "kind", map=torch.rand(1, size, size), parts=parts)
        return [dataclasses.replace(one, layer=f"{name}{k}") for k in range(count)]

    assert drawable(gates("strip", 3)) == [0, 1, 2]
    assert drawable(gates("strip", 10)) == [0, 3, 6, 9]
    assert drawable(gates("triplet", 9, hw=torch.rand(1, 6, 6))) == [0, 4, 8]
    assert drawable([*gates("small", 2, size=1), Gates("se", "se")]) == []
    assert drawable([]) == []


def test_a_network_without_gates_has_no_figure(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), SqueezeExcite(4))
    assert draw_gates(network, Preprocess(image_size=16), noise(2), tmp_path) == []
    assert draw_gates(network, Preprocess(image_size=16), [], tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_grey_pictures(tmp_path):
    grey = Preprocess(image_size=16, mean=(0.5,), std=(0.5,))
    network = nn.Sequential(nn.Conv2d(1, 8, 3), CoordinateAttention(8))
    assert draw_gates(network, grey, noise(2), tmp_path)[0].path.is_file()


def test_names_that_matplotlib_would_read_as_mathematics(tmp_path):
    gates = Gates("a.$b^$", "strip", map=torch.rand(1, 4, 4))
    gate_canvas([np.zeros((8, 8, 3), np.float32)], [[gates]]).savefig(tmp_path / "a.png")


def test_gates_and_theta_that_are_no_numbers(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), CoordinateAttention(8), Deep(2, 8))
    for parameter in network.parameters():
        nn.init.constant_(parameter, float("nan"))
    figures = draw_gates(network, Preprocess(image_size=18), noise(1), tmp_path)
    assert [figure.path.name for figure in figures] == ["gates.png", "theta.png"]


class Deep(nn.Module):
    def __init__(self, layers, channels=3):
        super().__init__()
        self.patch = nn.Conv2d(channels, 12, 8, 8)
        self.blocks = nn.ModuleList(ReAttention(12, 3) for _ in range(layers))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = x + block(x)
        return x


def test_theta_of_all_layers_is_on_one_scale_around_0(canvases, tmp_path):
    network = Deep(10)
    (figure,) = draw_gates(network, Preprocess(image_size=16), noise(2), tmp_path)
    assert figure.path == tmp_path / "theta.png"
    drawn = [axes for axes in canvases["theta.png"].axes if axes.images]
    assert [axes.get_title() for axes in drawn] == [f"blocks.{k}" for k in range(10)]
    thetas = [block.reatten_matrix.weight.detach()[:, :, 0, 0] for block in network.blocks]
    top = max(float(theta.abs().max()) for theta in thetas)
    for axes, theta in zip(drawn, thetas, strict=True):
        assert np.array_equal(axes.images[0].get_array(), theta)
        assert axes.images[0].get_clim() == pytest.approx((-top, top))
        middle = axes.images[0].cmap(axes.images[0].norm(0.0))[:3]
        assert min(middle) > 0.95  # white


def test_theta_of_nothing_but_zeros():
    gates = Gates("a", "reattention", parts={"theta": torch.zeros(2, 2), "bias": torch.zeros(2)})
    theta_canvas([gates]).draw_without_rendering()


@pytest.mark.parametrize("strides", [None, (4, 8)])
def test_only_the_levels_that_a_task_takes_have_a_colour(strides):
    torch.manual_seed(0)
    layers = [
        SelectiveIntegration((8, 8, 8), 16, ("edge", "saliency"), level=level, selected=1)
        for level in (0, 1)
    ]

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, x):
            return [layer([x, x, x]) for layer in self.layers]

    picture = np.zeros((8, 12, 3), np.float32)
    gates = [read_gates(Decoder(), torch.rand(1, 8, 4, 4)) for _ in range(3)]
    canvas = choices_canvas([picture] * 3, gates, strides)
    canvas.draw_without_rendering()
    cells = np.reshape(canvas.axes, (3, 3))
    assert [axes.get_title() for axes in cells[0]] == ["", "edge", "saliency"]
    for row, of_picture in zip(cells, gates, strict=True):
        for axes, task in zip(row[1:], ("edge", "saliency"), strict=True):
            weights = np.concatenate([one.parts[task] for one in of_picture])
            texts = [text.get_text() for text in axes.texts]
            assert texts == [f"{weight:.2f}" for weight in weights.ravel()]
            shade = np.asarray(axes.images[0].get_array())
            assert [row.nonzero()[0].tolist() for row in shade] == [[w.argmax()] for w in weights]
    levels = [label.get_text() for label in cells[-1, 1].get_xticklabels()]
    scales = [label.get_text() for label in cells[0, 1].get_yticklabels()]
    assert levels == (["1\n1/4", "2\n1/8", "pyramid"] if strides else ["1", "2", "3"])
    assert scales == (["1, 1/4", "2, 1/8"] if strides else ["1", "2"])


def test_reports_of_classification_have_them(config, replaced):
    inserted = (Insertion(layer="triplet", where="layer2"),)
    run = foveal.train(
        replaced(config, image_size=32, model="test_resnet", insert=inserted, max_steps=1)
    )
    assert (run.path / "figures" / "gates.png").is_file()
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "What attention lets through" in page
    assert "Of triplet attention" in page


def test_reports_of_segmentation_have_them(segment_config):
    inserted = (Insertion(layer="strip", where="backbone.model.blocks.[12]"),)
    run = foveal.train(dataclasses.replace(segment_config, insert=inserted, max_steps=1))
    assert (run.path / "figures" / "gates.png").is_file()
    assert "What attention lets through" in (run.path / "report.html").read_text(encoding="utf-8")


def test_colours_differ_in_lightness():
    """So that they can be told apart without seeing colours."""

    def lightness(name, at):
        r, g, b = to_rgb(colormaps[name](at))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    shades = [lightness(gate_figures.MAP_COLORS, at) for at in np.linspace(0, 1, 50)]
    assert (np.diff(shades) > 0).all()
    signed = [lightness(gate_figures.SIGNED_COLORS, at) for at in np.linspace(0, 1, 51)]
    assert (np.diff(signed[:26]) > 0).all()
    assert (np.diff(signed[25:]) < 0).all()
