import numpy as np
import pytest

from foveal.data import fashion
from foveal.data.scenes import photographs


def test_each_split_has_photographs_of_its_own():
    found = fashion.read().parts
    for k in range(10):
        train, val, test = (photographs.rows(split, k) for split in ("train", "val", "test"))
        assert not {*train} & {*val}
        assert len(train) > 300
        assert len(val) > 70
        assert len(test) > 100
        assert (found["train"].targets[train] == k).all()
        assert (found["train"].targets[val] == k).all()
        assert (found["test"].targets[test] == k).all()
    pixels = {
        split: {
            found[source].pixels[row].tobytes()
            for k in range(10)
            for row in photographs.rows(split, k)
        }
        for split, source in (("train", "train"), ("val", "train"), ("test", "test"))
    }
    assert not pixels["train"] & pixels["val"]
    assert not pixels["train"] & pixels["test"]


@pytest.mark.parametrize("category", range(10))
def test_masks_hold_what_is_clothing(category):
    for number in range(20):
        photo = photographs.photograph("train", category, number)
        assert photo.mask.sum() >= 120
        assert (photo.cover[~photo.mask] == 0).all()
        assert (photo.cover[photo.depth > 1] == 255).all()
        assert ((photo.depth > 0) == photo.mask).all()
        row, column, depth = photographs.widest_place(photo)
        assert photo.mask[row, column]
        # the whole square around it lies within the item: that is what the depth says
        reach = depth - 1
        square = photo.mask[row - reach : row + reach + 1, column - reach : column + reach + 1]
        assert square.shape == (2 * reach + 1, 2 * reach + 1)
        assert square.all()
        low, high = photographs.grey_range(photo)
        assert low <= np.median(photo.grey[photo.mask]) <= high


def test_small_holes_are_closed_and_crumbs_left_out():
    grey = np.zeros((28, 28), np.uint8)
    grey[4:24, 4:24] = 200
    grey[10:12, 10:12] = 0  # a dark print
    grey[14:20, 14:20] = 5  # the opening of a handle
    grey[1, 1:4] = 100  # a speck of dirt
    photo = photographs._photograph(grey, 9)
    expected = np.zeros((28, 28), bool)
    expected[4:24, 4:24] = True
    expected[14:20, 14:20] = False
    assert (photo.mask == expected).all()
    assert photo.box == (4, 23, 4, 23)
    expected[4:24, 4:24] = True
    assert (photographs._photograph(grey, 28 * 28).mask == expected).all()


def test_the_field_is_the_photograph_enlarged():
    photo = photographs.photograph("train", 2, 0)
    pad, factor = photographs.PAD, photographs.FACTOR
    field = photo.field()
    assert field.shape == (photographs.FIELD, photographs.FIELD)
    for shift, stored in ((0, photo.cover), (16, photo.grey * photo.mask), (32, photo.depth)):
        values = (field >> shift & 0xFF).astype(float) * (field & 0xFF)
        means = values.reshape(28 + 2 * pad, factor, -1, factor).mean(axis=(1, 3))
        # the mean over a pixel of the photograph fits that pixel better than any beside it
        fits = {
            (dy, dx): np.corrcoef(
                np.roll(means, (dy, dx), (0, 1))[pad:-pad, pad:-pad].ravel(), stored.ravel()
            )[0, 1]
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        }
        assert max(fits, key=fits.get) == (0, 0)
        assert fits[0, 0] > 0.9
