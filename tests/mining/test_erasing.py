import numpy as np
import pytest
import torch

from foveal.mining.erasing import dilate, erase, feature_mask


def test_dilation_reaches_by_squares():
    masks = torch.zeros(1, 7, 9)
    masks[0, 3, 8] = 1
    grown = dilate(masks, 2)[0]
    expected = torch.zeros(7, 9, dtype=torch.bool)
    expected[1:6, 6:9] = True
    assert torch.equal(grown, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2)])
def test_a_dilation_beyond_the_picture_fills_it(size):
    masks = torch.zeros(2, *size)
    masks[0, 0, 0] = 1
    assert dilate(masks, 50).flatten(1).all(1).tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_erasing_fills_channels_and_leaves_the_rest(dtype):
    images = torch.rand(2, 3, 4, 5).to(dtype)
    before = images.clone()
    masks = torch.zeros(2, 4, 5, dtype=torch.uint8)
    masks[1, 2, 3] = 1
    erased = erase(images, masks, fill=[0.25, 0.5, -1.0])
    assert erased.dtype == dtype
    assert erased[1, :, 2, 3].tolist() == [0.25, 0.5, -1.0]
    assert torch.equal(images, before)
    changed = (erased != images).any(1)
    assert changed.nonzero().tolist() == [[1, 2, 3]]


def test_erasing_nothing_at_all():
    assert erase(torch.rand(0, 3, 4, 5), torch.zeros(0, 4, 5), dilation=1).shape == (0, 3, 4, 5)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"masks \[P, H, W\], not \[1, 3, 4, 4\] and \[1, 4, 5\]"):
        erase(torch.rand(1, 3, 4, 4), torch.zeros(1, 4, 5))
    with pytest.raises(ValueError, match=r"each of the 3 channels, not of shape \[2\]"):
        erase(torch.rand(1, 3, 4, 4), torch.zeros(1, 4, 4), fill=[0.0, 1.0])
    with pytest.raises(ValueError, match="dilation must be at least 0, not -1"):
        dilate(torch.zeros(1, 4, 4), -1)
    with pytest.raises(ValueError, match="coverage must lie in"):
        feature_mask(torch.zeros(1, 4, 4), (2, 2), 0)


@pytest.mark.parametrize(
    ("pixels", "cells"), [((12, 10), (4, 3)), ((7, 5), (3, 4)), ((2, 3), (5, 1))]
)
def test_coverage_is_that_of_a_finer_grid(pixels, cells):
    # On the grid that both divide, shares of a cell are counts.
    masks = torch.rand(6, *pixels, generator=torch.Generator().manual_seed(1)) > 0.5
    fine = masks.numpy().repeat(cells[0], 1).repeat(cells[1], 2)
    blocks = fine.reshape(6, cells[0], pixels[0], cells[1], pixels[1])
    for coverage in (0.5, 0.3, 1.0):
        expected = blocks.mean((2, 4)) >= coverage
        assert np.array_equal(feature_mask(masks, cells, coverage).numpy(), expected)


def test_half_a_cell_is_enough_whatever_the_size():
    for width in range(2, 400, 2):
        masks = torch.zeros(1, 1, width, dtype=torch.bool)
        masks[..., : width // 2] = True
        assert feature_mask(masks, (1, 1)).item()
        masks[..., 0] = False
        assert not feature_mask(masks, (1, 1)).item()
