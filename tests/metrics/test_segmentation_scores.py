"""Scores against counts by hand, torchmetrics and loops over pixels."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.segmentation import mean_iou

from foveal.metrics import SegmentationScores, class_iou, confusion_matrix, overlap

NAMES = ("sky", "road", "pole", "kerb")


def pictures(count=7, classes=4, seed=0):
    """Return (prediction, target) pairs of different sizes, with ignored pixels."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        size = tuple(rng.integers(1, 9, 2))
        prediction, target = rng.integers(0, classes, (2, *size))
        target[rng.random(size) < 0.2] = 255
        pairs.append((torch.as_tensor(prediction), torch.as_tensor(target)))
    return pairs


def scored(pairs, order=None):
    scores = SegmentationScores(NAMES)
    for index in range(len(pairs)) if order is None else order:
        scores.update(torch.tensor(index), *pairs[index])
    return scores


def test_two_pictures_by_hand():
    """Sky: 2 of 3 true pixels found and 1 predicted elsewhere; pole: never found, never there."""
    first = torch.tensor([[0, 0, 1], [1, 1, 3]]), torch.tensor([[0, 0, 0], [1, 255, 1]])
    second = torch.tensor([[0, 1]]), torch.tensor([[1, 255]])
    scores = scored([first, second])
    assert scores.compute() == {
        "miou": pytest.approx((2 / 4 + 1 / 4 + 0 / 1) / 3),
        "pixel_accuracy": 3 / 6,
        "iou/sky": 2 / 4,
        "iou/road": 1 / 4,
        "iou/kerb": 0.0,
    }
    assert scores.absent == ("pole",)
    assert scores.confusion.tolist() == [
        [2, 1, 0, 0, 0],
        [1, 1, 0, 1, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_the_data_set_is_one_picture():
    """Not the mean of pictures: torchmetrics' score of all pixels in one row."""
    pairs = pictures()
    row = [torch.cat([part.flatten() for part in parts]) for parts in zip(*pairs, strict=True)]
    prediction, target = (part[row[1] != 255][None] for part in row)
    expected = mean_iou(prediction, target, 4, per_class=True, input_format="index")[0]
    result = scored(pairs).compute()
    for name, value in zip(NAMES, expected.tolist(), strict=True):
        assert result[f"iou/{name}"] == pytest.approx(value)
    assert result["miou"] == pytest.approx(expected.mean().item())
    assert result["pixel_accuracy"] == pytest.approx((prediction == target).double().mean().item())


def test_scores_do_not_depend_on_order():
    pairs = pictures(20)
    order = np.random.default_rng(1).permutation(20).tolist()
    assert scored(pairs).compute() == scored(pairs, order).compute()  # to the last digit


def test_a_picture_that_two_processes_saw_counts_once():
    pairs = pictures()
    whole, repeated = scored(pairs), scored(pairs, [5, 1, 2, 0, 1, 2, 3, 4, 5, 6, 0])
    assert repeated.compute() == whole.compute()
    assert torch.equal(repeated.confusion, whole.confusion)
    # The second process may have computed other numbers: the first one's count, all of them.
    other = (pairs[3][0].flip(0), pairs[3][1])
    repeated.update(torch.tensor(3), *other)
    assert repeated.compute() == whole.compute()


def test_an_ignored_picture_counts_for_nothing():
    pairs = pictures()
    expected = scored(pairs).compute()
    ignored = (torch.zeros(3, 4, dtype=torch.int64), torch.full((3, 4), 255))
    assert scored([ignored, *pairs]).compute() == expected
    alone = scored([ignored])
    result = alone.compute()
    assert list(result) == ["miou", "pixel_accuracy"]
    assert all(math.isnan(value) for value in result.values())
    assert alone.absent == NAMES


def test_no_answer_is_wrong():
    prediction, target = torch.tensor([[0, -1, 7, 1]]), torch.tensor([[0, 0, 1, 255]])
    scores = scored([(prediction, target)])
    assert scores.compute() == {
        "miou": 1 / 4,
        "pixel_accuracy": 1 / 3,
        "iou/sky": 1 / 2,
        "iou/road": 0.0,
    }
    assert scores.confusion[:2, -1].tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_confusion_against_a_loop(dtype):
    prediction, target = pictures(1, seed=3)[0]
    expected = np.zeros((4, 5), int)
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != 255:
            expected[t, p] += 1
    assert confusion_matrix(prediction.to(dtype), target.to(dtype), 4).tolist() == expected.tolist()


def test_a_square_matrix_will_do():
    square = torch.tensor([[3, 1], [0, 4]])
    assert class_iou(square) == [3 / 4, 4 / 5]
    assert overlap(square) == ((3 / 4 + 4 / 5) / 2, 7 / 8)


@pytest.mark.parametrize(("label", "ignore"), [(4, 255), (-1, 255), (255, 11)])
def test_a_label_that_is_no_class(label, ignore):
    target = torch.tensor([0, label])
    with pytest.raises(ValueError, match=f"label {label} is no class: there are 4, and {ignore}"):
        confusion_matrix(torch.zeros(2, dtype=torch.int64), target, 4, ignore)


def test_shapes_that_differ():
    with pytest.raises(ValueError, match=r"the same shape, not \[2, 3\] and \[3, 2\]"):
        confusion_matrix(torch.zeros(2, 3), torch.zeros(3, 2), 4)
