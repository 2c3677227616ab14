import numpy as np
import pytest

from foveal.data.scenes import placing
from foveal.data.scenes.exact import Draws
from foveal.data.scenes.placing import MIN_VISIBLE, place

SIZES = [(96, 160), (128, 128), (64, 64), (151, 97)]


def places(count, size, start=0):
    draws = Draws(size[0], start)
    for k in range(start, start + count):
        fine = [draws.integer(100) for _ in range(1 + draws.integer(4))]
        yield place(Draws(k), "train", fine, *size)


def check(placement, least):
    numbers = len(placement.items) + 1
    for layer in (0, 1):
        seen = np.bincount(placement.visible[layer].ravel(), minlength=numbers)
        for k, item in enumerate(placement.items):
            assert seen[k + 1] >= least * item.areas[layer]
    areas = np.bincount(placement.instances.ravel(), minlength=numbers)[1:]
    assert areas.argmax() == 0
    assert areas.min() > 0
    assert sorted(placement.order) == list(range(len(placement.items)))


@pytest.mark.parametrize("size", SIZES)
def test_enough_of_every_item_and_detail_is_visible(size):
    for placement in places(60, size):
        check(placement, MIN_VISIBLE)


@pytest.mark.parametrize("size", SIZES)
def test_also_where_no_drawn_place_ever_fits(size, monkeypatch):
    monkeypatch.setattr(placing, "_TRIES", 0)
    for placement in places(40, size, 500):
        check(placement, MIN_VISIBLE)
        for item in placement.items[1:]:
            assert max(item.size) <= 0.1 * min(size) + 5


def test_sizes_span_the_range():
    side, longer = 128, []
    for placement in places(150, (side, side), 1000):
        for item in placement.items:
            rows, columns = np.nonzero(item.covers[0])
            longer.append((max(np.ptp(rows), np.ptp(columns)) + 1) / side)
    assert 0.08 < min(longer) < 0.12
    assert 0.8 < max(longer) < 0.92


def test_items_overlap_and_touch_each_other():
    hidden = behind = 0
    for placement in places(100, (128, 128), 2000):
        areas = np.bincount(placement.instances.ravel(), minlength=5)
        hidden += any(areas[k + 1] < item.areas[0] for k, item in enumerate(placement.items))
        behind += placement.order[-1] == 0 and len(placement.items) > 1
    assert hidden > 35
    assert behind > 3


def test_visible_maps_are_the_masks_from_far_to_near():
    for placement in places(30, (100, 120), 3000):
        expected = np.zeros((2, 100, 120), np.uint8)
        for k in placement.order:
            item = placement.items[k]
            for y, x in np.argwhere(item.covers[0]):
                row, column = y + item.top, x + item.left
                if 0 <= row < 100 and 0 <= column < 120:
                    expected[0, row, column] = k + 1
                    expected[1, row, column] = (k + 1) * item.covers[1][y, x]
        assert (placement.visible == expected).all()
