import numpy as np
import torch
from PIL import Image

from foveal.tasks.confusion_figure import draw_confusion
from foveal.tasks.segment_figures import draw_class_bars, middle_window, mistakes

COUNTS = torch.tensor([[90, 10, 0, 0], [5, 15, 0, 3], [0, 0, 0, 0]])


def test_class_bars_name_what_is_left_out(tmp_path):
    figure = draw_class_bars(COUNTS, ("ground", "po$e", "un_corn"), tmp_path)
    assert figure.path.name == "classes.png"
    with Image.open(figure.path) as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert "left out of the mean: un_corn." in figure.caption
    whole = draw_class_bars(COUNTS[:2, :3], ("ground", "pole"), tmp_path)
    assert "left out" not in whole.caption


def test_class_bars_of_nothing(tmp_path):
    """Every pixel ignored."""
    figure = draw_class_bars(torch.zeros(3, 4, dtype=torch.int64), ("a", "b", "c"), tmp_path)
    assert "left out of the mean: a, b, c." in figure.caption
    assert figure.path.is_file()


def test_mistakes_are_red_and_ignored_pixels_dark():
    truth = np.array([[0, 1, 255]], np.uint8)
    right, wrong, ignored = mistakes(truth, np.array([[0, 2, 1]], np.uint8))[0].tolist()
    assert right == [235] * 3
    assert ignored == [150] * 3
    assert wrong[0] > 150 > wrong[1]


def test_confusion_in_counts_and_in_per_cent(tmp_path):
    counts = draw_confusion(COUNTS[:, :3], ("ground", "po$e", "c"), tmp_path)
    assert "counts" in counts.caption
    first = counts.path.read_bytes()
    shares = draw_confusion(COUNTS[:, :3], ("ground", "po$e", "c"), tmp_path, shares=True)
    assert "per cent" in shares.caption
    assert shares.path.read_bytes() != first


def test_the_middle_window_of_a_picture():
    picture = Image.fromarray(np.arange(7 * 4, dtype=np.uint8).reshape(4, 7))
    assert np.asarray(middle_window(picture, 3)).tolist() == [[2, 3, 4], [9, 10, 11], [16, 17, 18]]
    assert middle_window(picture, 5).size == (5, 4)
    assert middle_window(picture, 0).size == (7, 4)
