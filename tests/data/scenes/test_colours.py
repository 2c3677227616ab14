import numpy as np
import pytest

from foveal.data.scenes.colours import contrasting, difference, draw_colour, lightness, near
from foveal.data.scenes.exact import Draws


def test_colours_have_the_lightness_asked_for_and_any_hue():
    draws = Draws(0)
    colours = np.array([draw_colour(draws, (0.4, 0.6)) for _ in range(400)])
    assert colours.min() >= 0.02
    assert colours.max() <= 0.98
    light = np.array([lightness(colour) for colour in colours])
    assert light.min() > 0.33
    assert light.max() < 0.67
    for strongest in range(3):
        assert (colours.argmax(axis=1) == strongest).mean() > 0.2


def test_contrast():
    draws = Draws(1)
    for _ in range(100):
        one, other = draw_colour(draws), draw_colour(draws)
        found = contrasting(draws, one, other, least=0.2)
        assert min(difference(found, one), difference(found, other)) > 0.15
    black, white = np.zeros(3, np.float32), np.ones(3, np.float32)
    assert difference(black, white) == pytest.approx(1.2)
    assert difference(black, black) == 0


def test_near_colours_are_near():
    colour = np.array([0.5, 0.01, 0.99], np.float32)
    found = np.array([near(Draws(k), colour, 0.1) for k in range(50)])
    assert np.abs(found - colour).max() <= 0.1 + 1e-6
    assert found.std(axis=0).min() > 0.01
