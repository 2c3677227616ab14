"""Scores against values by hand, torchmetrics and scikit-learn's definitions."""

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from foveal.metrics import (
    ClassificationScores,
    MultiLabelScores,
    calibration_bins,
    expected_calibration_error,
)
from foveal.metrics.classification import exact_mean


def scored(logits, target, order=None, batch=3):
    scores = ClassificationScores()
    order = torch.arange(len(target)) if order is None else order
    for part in order.split(batch):
        scores.update(part, logits[part], target[part])
    return scores


def test_four_pictures_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]])
    target = torch.tensor([0, 1, 2, 2])
    result = scored(p.log(), target).compute()
    assert result["accuracy"] == 0.5
    assert result["accuracy_top5"] == 1.0
    expected = -(math.log(0.7) + math.log(0.3) + math.log(0.8) + math.log(0.1)) / 4
    assert result["nll"] == pytest.approx(expected, rel=1e-6)
    # each picture falls in a bin of its own, so the gaps add up without cancelling
    assert result["ece"] == pytest.approx((0.3 + 0.5 + 0.2 + 0.6) / 4, rel=1e-6)


def test_top5_counts_the_targets_rank():
    logits = torch.arange(8.0).repeat(8, 1)
    result = scored(logits, torch.arange(8)).compute()
    assert result["accuracy"] == 1 / 8
    assert result["accuracy_top5"] == 5 / 8


def test_equal_logits_are_ranked_in_the_order_of_the_classes():
    scores = scored(torch.zeros(8, 8), torch.arange(8))
    result = scores.compute()
    assert (result["accuracy"], result["accuracy_top5"]) == (1 / 8, 5 / 8)
    assert scores.column("prediction").tolist() == [0] * 8
    assert scores.column("rank").tolist() == list(range(8))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("classes", [3, 8])
def test_logits_that_are_not_finite_are_wrong(value, classes):
    logits = torch.eye(classes)
    logits[:2, 0] = value
    scores = scored(logits, torch.arange(classes))
    result = scores.compute()
    assert result["accuracy"] == result["accuracy_top5"] == (classes - 2) / classes
    assert math.isnan(result["nll"])
    assert math.isnan(result["ece"])
    assert scores.column("rank")[:2].tolist() == [classes] * 2
    assert scores.confusion(classes).diagonal().tolist() == [0, 0] + [1] * (classes - 2)
    assert scores.confusion(classes).sum() == classes - 2


def test_scores_do_not_depend_on_order_or_batches():
    torch.manual_seed(0)
    logits, target = torch.randn(101, 7) * 3, torch.randint(7, (101,))
    first = scored(logits, target, batch=101).compute()
    shuffled = scored(logits, target, torch.randperm(101), batch=4).compute()
    assert first == shuffled  # to the last digit


@pytest.mark.parametrize("scores", [ClassificationScores(), MultiLabelScores(7)])
def test_a_picture_that_two_processes_saw_counts_once(scores):
    torch.manual_seed(0)
    logits, target = torch.randn(11, 7), torch.randint(7, (11,))
    if isinstance(scores, MultiLabelScores):
        target = torch.nn.functional.one_hot(target, 7)
    scores.update(torch.arange(11), logits, target)
    expected = scores.compute()
    scores.reset()
    for part in (torch.tensor([7, 1, 4]), torch.arange(11), torch.arange(5, 11)):
        scores.update(part, logits[part], target[part])
    assert scores.compute() == expected


def test_calibration_error_agrees_with_torchmetrics():
    torch.manual_seed(1)
    logits, target = torch.randn(500, 10) * 2, torch.randint(10, (500,))
    p = logits.softmax(1)
    confidence, prediction = p.max(1)
    ours = expected_calibration_error(confidence, (prediction == target).float())
    theirs = multiclass_calibration_error(p, target, 10, n_bins=15, norm="l1")
    assert ours == pytest.approx(theirs.item(), abs=1e-5)


def test_perfect_and_worst_calibration():
    ones = torch.ones(4)
    assert expected_calibration_error(ones, ones) == 0
    assert expected_calibration_error(ones, 0 * ones) == 1
    assert math.isnan(expected_calibration_error(torch.empty(0), torch.empty(0)))


def test_bins_by_hand():
    """Upper edges belong to their bin; a confidence of 0 goes to the first."""
    confidence = torch.tensor([0.0, 0.25, 0.26, 0.5, 1.0, 0.9, math.nan], dtype=torch.float64)
    correct = torch.tensor([1, 0, 0, 1, 1, 0, 1])
    bins = calibration_bins(confidence, correct, bins=4)
    assert bins.pictures.tolist() == [2, 2, 0, 2]
    assert bins.confidence[[0, 1, 3]].tolist() == pytest.approx([0.125, 0.38, 0.95])
    assert bins.accuracy[[0, 1, 3]].tolist() == [0.5, 0.5, 0.5]
    assert bins.confidence[2].isnan()
    assert bins.accuracy[2].isnan()
    # (2 * 0.375 + 2 * 0.12 + 2 * 0.45) / 6
    ece = expected_calibration_error(confidence[:6], correct[:6], bins=4)
    assert ece == pytest.approx(0.315)
    assert math.isnan(expected_calibration_error(confidence, correct, bins=4))


def test_bins_of_nothing():
    bins = calibration_bins(torch.empty(0), torch.empty(0))
    assert bins.pictures.tolist() == [0] * 15
    assert bins.accuracy.isnan().all()


def test_exact_mean_is_the_rounded_true_mean():
    values = torch.tensor([1e16, 1.0, -1e16, 1.0], dtype=torch.float64)
    assert exact_mean(values) == 0.5  # any running sum loses one of the ones


def test_confusion_counts_rows_as_truth():
    logits = torch.eye(3)[[1, 1, 2, 0]]
    scores = scored(logits, torch.tensor([0, 1, 2, 0]))
    scores.compute()
    counts = scores.confusion(3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_multi_label_by_hand():
    scores = MultiLabelScores(3)
    logits = torch.tensor([[2.0, -1.0, 0.5], [-2.0, 3.0, 0.5], [1.0, -3.0, -0.5]])
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    scores.update(torch.arange(3), logits, target)
    result = scores.compute()
    # class 0: positives ranked first; class 1 likewise; class 2 has no positive and is left out
    assert result["map"] == 1.0
    right = [1, 1, 0, 1, 1, 0, 0, 1, 1]
    assert result["accuracy"] == pytest.approx(sum(right) / 9)
    sign = torch.where(target > 0, -logits, logits).double()
    assert result["nll"] == pytest.approx(sign.exp().log1p().mean().item(), rel=1e-6)


def test_multi_label_average_precision_of_a_mixed_ranking():
    scores = MultiLabelScores(2)
    logits = torch.tensor([[4.0, 1.0], [3.0, 2.0], [2.0, 3.0], [1.0, 4.0]])
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    scores.update(torch.tensor([3, 2, 1, 0]), logits, target)
    assert scores.compute()["map"] == pytest.approx(((1 / 1 + 2 / 3) / 2 + 1) / 2)
