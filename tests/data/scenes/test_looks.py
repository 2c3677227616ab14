"""Grounds, light and domains: what makes a picture, whatever is on it."""

import numpy as np
import pytest

from foveal.data.scenes import ground, lighting
from foveal.data.scenes.domains import DOMAINS
from foveal.data.scenes.exact import Draws


@pytest.mark.parametrize("kind", ground._KINDS, ids=lambda kind: kind.__name__)
def test_grounds_are_textured(kind):
    for k in range(5):
        pattern = kind(Draws(k), 70, 100)
        assert pattern.shape == (70, 100)
        assert pattern.dtype == np.float32
        assert 0.03 < pattern.std() < 0.6
        assert -0.6 < pattern.min() < pattern.max() < 2
        assert (kind(Draws(k), 70, 100) == pattern).all()
        assert (kind(Draws(k + 9), 70, 100) != pattern).any()


def test_ground_and_its_middle_colour():
    for k in range(20):
        canvas, middle = ground.draw_ground(Draws(k), 64, 80)
        assert canvas.shape == (3, 64, 80)
        assert canvas.dtype == np.float32
        assert np.abs(canvas.mean(axis=(1, 2)) - middle).max() < 0.3


def test_shadows_fall_beside_the_item_and_only_darken():
    canvas = np.full((3, 40, 40), 0.5, np.float32)
    alpha = np.zeros((40, 40), np.uint8)
    alpha[10:20, 10:20] = 255
    lighting.cast_shadow(Draws(0), canvas, alpha, 4)
    assert canvas.max() <= 0.5
    assert canvas[:, 15:22, 12:18].max() < 0.48
    assert (canvas[:, 35:] == np.float32(0.5)).all()


def test_light_is_uneven_but_never_dark():
    seen = []
    for k in range(30):
        canvas = np.full((3, 50, 60), 0.5, np.float32)
        lighting.light(Draws(k), canvas)
        assert canvas.dtype == np.float32
        assert canvas.min() > 0.08
        seen.append(canvas.std())
    assert min(seen) > 0.005


@pytest.mark.parametrize("domain", DOMAINS)
def test_domains_leave_the_canvas_as_it_is(domain):
    canvas, _ = ground.draw_ground(Draws(3), 64, 64)
    instances = np.zeros((64, 64), np.uint8)
    instances[10:40, 20:50] = 1
    before = canvas.copy()
    for k in range(8):
        drawn = DOMAINS[domain](Draws(k), canvas, instances)
        assert drawn.shape == canvas.shape
        assert drawn.dtype == np.float32
    assert (canvas == before).all()


def test_what_domains_do():
    canvas, _ = ground.draw_ground(Draws(3), 64, 64)
    instances = np.zeros((64, 64), np.uint8)
    drawn = {
        name: [domain(Draws(k), canvas, instances) for k in range(20)]
        for name, domain in DOMAINS.items()
    }
    level = {name: np.mean([picture.mean() for picture in some]) for name, some in drawn.items()}
    assert level["night"] < 0.5 * level["clean"]

    def roughness(pictures):
        return np.mean([np.abs(np.diff(picture, axis=2)).mean() for picture in pictures])

    assert roughness(drawn["noisy"]) > 3 * roughness(drawn["clean"])
    # a sketch has two colours, and what is between them
    for picture in drawn["sketch"]:
        colours = picture.reshape(3, -1)
        values = np.linalg.svd(colours - colours.mean(axis=1, keepdims=True), compute_uv=False)
        assert values[0] > 2 * values[1]
