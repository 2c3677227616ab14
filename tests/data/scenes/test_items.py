import dataclasses

import numpy as np
import pytest

from foveal.data.scenes.details import DETAILS
from foveal.data.scenes.exact import Draws
from foveal.data.scenes.items import Shape
from foveal.data.scenes.painting import paint_item

GROUND = np.array([0.4, 0.5, 0.3], np.float32)


def test_turned_items_keep_their_places_on_the_photograph():
    """What a pixel shows fits its place on the photograph better than any place beside it."""
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    fits = np.zeros(len(steps))
    for k in range(30):
        item = Shape.draw(Draws(k), "train", 20).at(100)
        rows, columns = (
            array.round().astype(int) for array in (item.surface.rows, item.surface.columns)
        )
        deep = item.covers[0] & (item.surface.depth > 2.5)
        shown, grey = item.grey[deep], item.surface.photo.grey.astype(float)
        if shown.std() > 10:
            fits += [
                np.corrcoef(shown, grey[rows[deep] + dy, columns[deep] + dx])[0, 1]
                for dy, dx in steps
            ]
    assert steps[fits.argmax()] == (0, 0)
    assert sorted(fits)[-2] < 0.9 * fits.max()


@pytest.mark.parametrize("length", [7, 13, 30, 58, 115, 300])
def test_the_box_has_the_length_that_was_asked_for(length):
    for k in range(40):
        shape = Shape.draw(Draws(length, k), "test", 10 * (k % 10))
        item = shape.at(length)
        rows, columns = np.nonzero(item.covers[0])
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert length * 0.85 - 2 <= longer <= length * 1.02 + 2
        assert item.areas[0] == len(rows)
        assert item.areas[0] == pytest.approx(shape.fill * length**2, rel=0.25, abs=14)
        assert ((item.alpha >= 0.5) == item.covers[0]).all()
        # nothing of it is cut off by its patch
        edges = item.alpha[0], item.alpha[-1], item.alpha[:, 0], item.alpha[:, -1]
        assert max(edge.max() for edge in edges) < 0.5


@pytest.mark.parametrize("detail", range(1, 10))
@pytest.mark.parametrize("category", range(10))
def test_fine_classes_differ_in_their_detail_alone(category, detail):
    shape = Shape.draw(Draws(category), "train", 10 * category)
    plain = shape.at(80)
    item = dataclasses.replace(shape, fine=10 * category + detail).at(80)
    assert (item.alpha == plain.alpha).all()
    assert plain.areas[1] == 0
    assert 0.02 < item.areas[1] / item.areas[0] < 0.95, list(DETAILS)[detail]
    one, other = (paint_item(Draws(3), which, GROUND, main=True) for which in (plain, item))
    assert one.dtype == other.dtype == np.float32
    assert (one == other)[:, item.detail == 0].all()
    changed = np.abs(one - other).max(axis=0)[item.covers[1]]
    assert np.median(changed) > 0.12


def test_the_main_item_stands_out_from_its_ground():
    apart = []
    for k in range(60):
        item = Shape.draw(Draws(k), "train", 40).at(40)
        colours = paint_item(Draws(k), item, GROUND, main=True)[:, item.covers[0]]
        apart.append(np.abs(colours.mean(axis=1) - GROUND).max())
    assert np.mean(np.array(apart) > 0.08) > 0.95
