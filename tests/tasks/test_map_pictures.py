"""What is drawn of maps, at single pixels."""

import numpy as np
import pytest
from PIL import Image

from foveal.tasks.map_pictures import MAP_COLORS, map_overlay, map_panels


def test_what_is_salient_is_tinted_and_the_rest_stays():
    image = Image.new("RGB", (10, 8), (40, 80, 120))
    saliency = np.zeros((8, 10), np.float32)
    saliency[:, 5:] = 1
    drawn = np.asarray(map_overlay(image, {"saliency": saliency}))
    assert (drawn[:, :5] == (40, 80, 120)).all()
    half = np.mean([MAP_COLORS["saliency"], (40, 80, 120)], 0)
    assert abs(drawn[:, 5:] - half).max() <= 0.5


def test_lines_are_drawn_along_their_crests():
    image = Image.new("RGB", (40, 40))
    edge, skeleton = np.zeros((2, 40, 40), np.float32)
    edge[:, 8:13] = (0.2, 0.6, 1, 0.6, 0.2)  # a ridge five pixels wide
    skeleton[:, 30] = 0.5
    drawn = np.asarray(map_overlay(image, {"edge": edge, "skeleton": skeleton}))
    assert (drawn[20, 10] == MAP_COLORS["edge"]).all()
    assert abs(drawn[20, 30] - np.array(MAP_COLORS["skeleton"]) / 2).max() <= 0.5
    assert not drawn[:, [8, 9, 11, 12, 29, 31]].any()


@pytest.mark.parametrize(("width", "least", "most"), [(199, 1, 1), (500, 3, 3), (4000, 10, 14)])
def test_lines_of_larger_pictures_are_thicker(width, least, most):
    image = Image.new("RGB", (width, 40))
    edge = np.zeros((40, width), np.float32)
    edge[:, width // 2] = 1
    drawn = np.asarray(map_overlay(image, {"edge": edge}))
    columns = np.flatnonzero((drawn[20] > 100).any(-1))
    assert least <= len(columns) <= most
    assert abs(columns.mean() - width // 2) <= 2


@pytest.mark.parametrize("size", [(480, 320), (30, 60), (1, 1), (1, 900), (900, 1), (1500, 1200)])
def test_pictures_beside_their_maps(size):
    image = Image.new("RGB", size, (10, 200, 30))
    white = np.ones(size[::-1], np.float32)
    sheet = map_panels(image, {"saliency": white, "edge": 0 * white})
    assert sheet.height <= 300 + 50
    assert sheet.width <= 3 * 420
    step = (sheet.width - 8) // 3
    pixels = np.asarray(sheet)[-9]  # the lowest row of the pictures
    assert [pixels[8 + i * step].tolist() for i in range(3)] == [
        [10, 200, 30],
        [255, 255, 255],
        [0, 0, 0],
    ]
