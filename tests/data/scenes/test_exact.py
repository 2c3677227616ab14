import numpy as np
import pytest

from foveal.data.scenes import exact
from foveal.data.scenes.exact import Draws


def test_draws_are_those_of_numpys_generator():
    sequence = np.random.SeedSequence((exact.SALT, 2, 3, 4))
    draws, numpy = Draws(3, 4), np.random.Generator(np.random.PCG64(sequence))
    assert [draws.number() for _ in range(5)] == [numpy.random() for _ in range(5)]
    low = Draws(3, 4).number(-2, 6)
    assert low == -2 + 8 * Draws(3, 4).number()
    assert Draws(3, 4).bytes(3, 5).tolist() != Draws(4, 3).bytes(3, 5).tolist()


def test_other_keys_are_other_streams():
    keys = [(), (0,), (0, 0), (0, 0, 0), (1,), (0, 1), (1, 0)]
    first = {Draws(*key).number() for key in keys} | {np.random.default_rng(0).random()}
    assert len(first) == len(keys) + 1


def test_whole_numbers_are_even():
    draws = Draws(1)
    counts = np.bincount([draws.integer(5) for _ in range(5000)], minlength=5)
    assert len(counts) == 5
    assert counts.min() > 900
    counts = np.bincount(Draws(2).bytes(100, 256).ravel(), minlength=256)
    assert counts.min() > 50


@pytest.mark.parametrize("radius", [1, 3])
def test_blur_is_exact_and_keeps_what_is_even(radius):
    values = Draws(0).bytes(2, 20, 31).astype(np.float32)
    rows, columns = (exact.blurring(n, radius).astype(np.int64) for n in (20, 31))
    assert (rows.sum(axis=1) == exact.WHOLE).all()
    sums = rows @ values.astype(np.int64) @ columns.T  # whole numbers: no rounding at all
    assert sums.max() < 2**24
    assert (exact.blur(values, radius) == sums / exact.WHOLE**2).all()
    assert (exact.blur(np.full((9, 9), 255, np.float32), radius) == 255).all()


def test_smooth_curves_follow_the_cubic_spline():
    weights = exact.smoothing(50, 4)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == exact.WHOLE).all()
    # a straight line stays straight, but for weights rounded to 1/64
    line = weights @ np.arange(7, dtype=np.float32) / exact.WHOLE
    expected = (np.arange(50) + 0.5) / 50 * 4 + 1
    assert np.abs(line - expected).max() < 0.06
    # half-way between two numbers: (1, 23, 23, 1) / 48
    assert exact.smoothing(1, 1)[0] == pytest.approx(np.array([1, 23, 23, 1]) / 48 * 64, abs=1)


def test_enlarged_pictures_keep_their_place():
    picture = np.zeros((8, 8), np.float32)
    picture[2, 5] = 1
    weights = exact.enlarging(8, 4)
    large = weights @ picture @ weights.T
    rows, columns = np.indices(large.shape)
    centre = (large * rows).sum() / large.sum(), (large * columns).sum() / large.sum()
    assert centre == pytest.approx((2 * 4 + 1.5, 5 * 4 + 1.5), abs=0.05)
    assert (large == large.round()).all()


def test_noise_is_about_one_half_and_smooth():
    noise = exact.fractal_noise(Draws(5), 90, 120, 3, 3)
    assert noise.shape == (90, 120)
    assert noise.dtype == np.float32
    assert 0.3 < noise.mean() < 0.7
    assert noise.std() > 0.05
    assert np.abs(np.diff(noise, axis=0)).max() < 0.15


def test_waves_and_eases():
    t = np.array([0, 0.25, 0.5, 0.75, 1, -0.25], np.float32)
    assert exact.wave(t).tolist() == [0, 0.5, 1, 0.5, 0, 0.5]
    assert exact.ease(np.array([-1, 0, 0.5, 1, 2])).tolist() == [0, 0, 0.5, 1, 1]
