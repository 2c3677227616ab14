import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from foveal.metrics import iou_by_object_size, spearman


def squares(sides, size=12):
    """Return masks of squares in a corner."""
    masks = torch.zeros(len(sides), size, size)
    for mask, side in zip(masks, sides, strict=True):
        mask[:side, :side] = 1
    return masks


def test_groups_by_given_edges():
    found = iou_by_object_size(squares([2, 2, 6, 9]), squares([4, 2, 3, 12]), edges=[9, 100])
    assert found.area.tolist() == [16, 4, 9, 144]
    assert found.iou.tolist() == [0.25, 1.0, 0.25, 81 / 144]
    assert found.means == (1.0, 0.25, 81 / 144)  # an object of just 9 pixels is in the second group
    assert found.edges == (9.0, 100.0)
    assert found.mean == pytest.approx((0.25 + 1 + 0.25 + 81 / 144) / 4)


def test_an_object_that_was_missed_counts_with_0():
    found = iou_by_object_size(squares([0, 3]), squares([3, 3]))
    assert found.mean == 0.5


def test_objects_without_pixels_are_in_no_mean():
    found = iou_by_object_size(squares([0, 3, 2]), squares([0, 0, 2]))
    assert math.isnan(found.iou[0])
    assert found.iou[1:].tolist() == [0.0, 1.0]
    assert found.mean == 1.0
    assert found.edges == (4.0, 4.0)
    assert math.isnan(found.means[0])
    assert found.means[2] == 1.0


def test_of_no_objects_nothing_is_known():
    for masks in (squares([]), squares([0, 0])):
        found = iou_by_object_size(masks, masks)
        assert math.isnan(found.mean)
        assert all(math.isnan(mean) for mean in found.means)


def test_tertiles_are_thirds():
    sides = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    found = iou_by_object_size(squares([*[0] * 3, *sides[3:]]), squares(sides))
    assert found.edges == pytest.approx(tuple(np.quantile(np.square(sides), [1 / 3, 2 / 3])))
    assert found.means == (0.0, 1.0, 1.0)


def test_correlation_of_ranks():
    rng = np.random.default_rng(0)
    steps, areas = rng.integers(1, 5, 40), rng.integers(1, 30, 40)
    assert spearman(torch.tensor(steps), torch.tensor(areas)) == pytest.approx(
        spearmanr(steps, areas).statistic, abs=1e-12
    )
    with_lost = torch.tensor([*areas, 0]), torch.tensor([*steps, 99])
    assert spearman(with_lost[1], with_lost[0]) == pytest.approx(spearmanr(steps, areas).statistic)


@pytest.mark.parametrize(
    ("steps", "areas"), [([], []), ([1], [4]), ([1, 1], [3, 4]), ([1, 2], [4, 4])]
)
def test_no_order_no_correlation(steps, areas):
    assert math.isnan(spearman(torch.tensor(steps), torch.tensor(areas)))


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="must have the same shape"):
        iou_by_object_size(squares([1]), squares([1, 2]))
    with pytest.raises(ValueError, match=r"edges must ascend, not \[5.0, 5.0\]"):
        iou_by_object_size(squares([1]), squares([1]), edges=[5, 5])
    with pytest.raises(ValueError, match="must have the same shape"):
        spearman(torch.ones(2), torch.ones(3))
