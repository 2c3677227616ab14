"""Scores of several tasks together are those of each alone."""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from foveal.metrics import EDGES, SKELETONS, BoundaryScores, MapScores, SaliencyScores

TASKS = ("saliency", "edge", "skeleton")
THRESHOLDS = 3


@pytest.fixture(scope="module")
def pictures():
    """Return (predictions, truths); the first has labels of all tasks, the others of one each."""
    rng = np.random.default_rng(0)
    found = []
    for tasks in (TASKS, ("saliency",), ("edge",), ("skeleton",)):
        height, width = (int(side) for side in rng.integers(30, 40, 2))
        truths, predictions = {}, {}
        rows, columns = np.mgrid[:height, :width]
        disc = (rows - height / 2) ** 2 + (columns - rng.integers(12, 18)) ** 2 < 80
        outline = disc & ~np.roll(disc, 1, 1)
        shapes = {
            "saliency": disc.astype(np.float32),
            "edge": np.stack([outline, np.roll(outline, 1, 0)]),
            "skeleton": np.stack([np.abs(rows - columns) < 1]),
        }
        for task in tasks:
            truth = shapes[task]
            plane = truth if task == "saliency" else truth[0]
            soft = 0.6 * plane + 0.4 * rng.random(plane.shape)
            truths[task] = torch.from_numpy(truth)
            predictions[task] = torch.from_numpy(soft.astype(np.float32))
        found.append((predictions, truths))
    return found


def scored(pictures, tasks=TASKS, pool=None, **options):
    scores = MapScores(tasks, thresholds=THRESHOLDS, **options)
    scores.pool = pool
    for index, picture in enumerate(pictures):
        scores.update(torch.tensor(index), *picture)
    return scores


def alone(pictures, task):
    """Return what a task's own metric says of the pictures that have its label."""
    protocols = {"edge": EDGES, "skeleton": SKELETONS}
    metric = (
        BoundaryScores(dataclasses.replace(protocols[task], thresholds=THRESHOLDS))
        if task in protocols
        else SaliencyScores()
    )
    for index, (predictions, truths) in enumerate(pictures):
        if task in truths:
            metric.update(torch.tensor(index), predictions[task], truths[task])
    return metric.compute()


def test_each_task_has_the_scores_of_its_own_metric(pictures):
    found = scored(pictures).compute()
    expected = {
        f"{task}/{name}": value for task in TASKS for name, value in alone(pictures, task).items()
    }
    assert {name: value for name, value in found.items() if name != "mean"} == expected
    main = [expected[name] for name in ("saliency/max_f", "edge/ods", "skeleton/ods")]
    assert found["mean"] == pytest.approx(sum(main) / 3)
    assert all(0.1 < value <= 1 for value in main)
    assert next(iter(found)) == "mean"


def test_labels_of_tasks_that_are_not_scored_are_left_out(pictures):
    found = scored(pictures, ["edge"]).compute()
    assert set(found) == {"mean", "edge/ods", "edge/ois", "edge/ap", "edge/r50"}
    assert found["mean"] == found["edge/ods"] == alone(pictures, "edge")["ods"]


def test_tasks_are_in_the_usual_order(pictures):
    assert tuple(MapScores(TASKS[::-1]).of_task) == TASKS


def test_a_task_without_pictures_has_no_score_and_is_named(pictures):
    scores = scored(pictures[1:3])
    found = scores.compute()
    assert scores.without_score == ("skeleton",)
    assert all(math.isnan(v) for name, v in found.items() if name.startswith("skeleton/"))
    assert found["mean"] == pytest.approx((found["saliency/max_f"] + found["edge/ods"]) / 2)


def test_without_any_picture_there_is_no_score():
    scores = MapScores(TASKS)
    found = scores.compute()
    assert scores.without_score == TASKS
    assert found.pop("saliency/min_max") == 1
    assert all(math.isnan(value) for value in found.values())


def test_empty_truths_are_no_score_of_lines_but_one_of_objects(pictures):
    """Of edges not one pixel is true, so recall means nothing; an empty saliency map can be hit."""
    predictions, truths = pictures[0]
    empty = {task: torch.zeros_like(truth) for task, truth in truths.items()}
    scores = scored([(predictions, empty)])
    found = scores.compute()
    assert scores.without_score == ("edge", "skeleton")
    assert 0 < found["saliency/mae"] < 1
    assert found["mean"] == found["saliency/max_f"] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_counted_and_predict_nothing(pictures, value):
    predictions, truths = pictures[0]
    broken = {task: p.clone() for task, p in predictions.items()}
    for p in broken.values():
        p[5:20] = value
    scores = scored([(broken, truths), pictures[1], pictures[2]])
    found = scores.compute()
    assert scores.not_finite == {"saliency": 1, "edge": 1, "skeleton": 1}
    zeroed = {task: torch.where(p.isfinite(), p, 0.0) for task, p in broken.items()}
    expected = scored([(zeroed, truths), pictures[1], pictures[2]]).compute()
    assert {k: v for k, v in found.items() if k.startswith(("edge", "skeleton"))} == {
        k: v for k, v in expected.items() if k.startswith(("edge", "skeleton"))
    }
    saliency = alone([(broken, truths), pictures[1]], "saliency")  # there they are wrong answers
    assert found["saliency/mae"] == saliency["mae"] > expected["saliency/mae"]
    assert not broken["edge"].isfinite().all()  # left as it was


def test_a_pool_gives_the_same_numbers(pictures):
    """In any order in which it counts, and with progress of the pictures of lines."""
    steps = []
    with ThreadPoolExecutor(2) as pool:
        scores = scored(pictures, pool=pool)
        scores.wait(lambda done, total: steps.append((done, total)))
        assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert scores.compute() == scored(pictures).compute()


def test_computing_waits_for_the_pool(pictures):
    with ThreadPoolExecutor(2) as pool:
        assert scored(pictures, pool=pool).compute() == scored(pictures).compute()


def test_pictures_may_follow_a_result(pictures):
    with ThreadPoolExecutor(1) as pool:
        scores = scored(pictures[:1], pool=pool)
        scores.compute()
        for index, picture in enumerate(pictures[1:], start=1):
            scores.update(torch.tensor(index), *picture)
        assert scores.compute() == scored(pictures).compute()


def test_after_a_reset_all_is_forgotten(pictures):
    with ThreadPoolExecutor(1) as pool:
        scores = scored(pictures, pool=pool)
        truth = torch.ones(1, 9, 9, dtype=torch.bool)
        scores.update(torch.tensor(9), {"edge": torch.full((9, 9), math.nan)}, {"edge": truth})
        scores.reset()
        assert scores.not_finite == dict.fromkeys(TASKS, 0)
        for index, picture in enumerate(pictures[:1]):
            scores.update(torch.tensor(index), *picture)
        assert scores.compute() == scored(pictures[:1]).compute()
    assert scores.without_score == ()


def test_a_picture_seen_twice_counts_once(pictures):
    scores = scored(pictures)
    for index, picture in enumerate(pictures):
        scores.update(torch.tensor(index), *picture)
    assert scores.compute() == scored(pictures).compute()


def test_computing_twice_gives_the_same(pictures):
    scores = scored(pictures)
    assert scores.compute() == scores.compute()


def test_lines_are_cut_at_as_many_thresholds_as_asked_for(pictures):
    scores = MapScores(TASKS)
    assert scores.of_task["edge"].protocol == EDGES
    assert scores.of_task["skeleton"].protocol == SKELETONS
    scores.cut_at(THRESHOLDS)
    for index, picture in enumerate(pictures):
        scores.update(torch.tensor(index), *picture)
    assert scores.compute() == scored(pictures).compute()


def test_saliency_is_scored_as_it_is_where_that_is_asked_for(pictures):
    plain = scored(pictures, min_max=False).compute()
    assert plain["saliency/min_max"] == 0
    metric = SaliencyScores(min_max=False)
    for index in (0, 1):
        predictions, truths = pictures[index]
        metric.update(torch.tensor(index), predictions["saliency"], truths["saliency"])
    assert (
        plain["saliency/mae"]
        == metric.compute()["mae"]
        != scored(pictures).compute()["saliency/mae"]
    )
