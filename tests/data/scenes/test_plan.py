import numpy as np
import pytest

from foveal.data.scenes import CLASSES, DETAILS, FINE_CLASSES
from foveal.data.scenes.plan import SPLITS, plan


def test_names():
    assert len(CLASSES) == len(DETAILS) == 10
    assert len({*FINE_CLASSES}) == 100
    assert FINE_CLASSES[41] == "Coat, stripes"


@pytest.mark.parametrize(("split", "size"), [("train", 6000), ("val", 600), ("test", 1200)])
@pytest.mark.parametrize("seed", [0, 7])
def test_every_class_is_the_main_one_equally_often(split, size, seed):
    assert SPLITS[split] == size
    scenes = plan(split, seed)
    assert np.bincount(scenes.fine[:, 0]).tolist() == [size // 100] * 100
    assert np.bincount(scenes.count, minlength=5)[1:].min() > 0.1 * size
    there = np.arange(4) < scenes.count[:, None]
    assert ((scenes.fine >= 0) == there).all()
    others = np.bincount(scenes.fine[:, 1:][there[:, 1:]] // 10, minlength=10)
    assert others.min() > 0.7 * others.mean()


def test_no_order_by_class():
    fine = plan("train", 0).fine[:, 0]
    assert (np.diff(fine) == 1).sum() < 200
    assert np.bincount(fine[:500] // 10, minlength=10).min() > 25
    shuffled = fine[np.argsort(np.random.default_rng(0).random(6000), kind="stable")]
    assert np.bincount(shuffled[:500] // 10, minlength=10).min() > 25


def test_seeds_and_splits_are_different_scenes():
    assert (plan("val", 0).fine != plan("val", 1).fine).any()
    assert (plan("val", 0).fine[:, 0] != plan("test", 0).fine[:600, 0]).any()
    with pytest.raises(ValueError, match="read-only"):
        plan("val", 0).fine[0] = 0


def test_present_is_the_set_of_the_items_classes():
    scenes = plan("val", 0)
    shown = scenes.present(scenes.fine // 10, 10)
    assert shown.dtype == np.float32
    for fine, row in zip(scenes.fine, shown, strict=True):
        assert {*np.flatnonzero(row)} == {k // 10 for k in fine if k >= 0}
