"""Wrong labels: how many, which, and that nothing but the arguments decides it."""

import numpy as np
import pytest

from foveal.data.label_noise import noisy_targets

TARGETS = np.repeat([0, 1, 2, 3], [100, 41, 7, 1])[np.random.default_rng(5).permutation(149)]


def changes(targets, noisy, num_classes):
    """Return counts [K, K], row = true class, column = given class."""
    counts = np.zeros((num_classes, num_classes), dtype=int)
    np.add.at(counts, (targets, noisy), 1)
    return counts


@pytest.mark.parametrize("kind", ["symmetric", "pair"])
@pytest.mark.parametrize(
    ("rate", "wrong"),
    [(0.0, [0, 0, 0, 0]), (0.2, [20, 8, 1, 0]), (0.5, [50, 21, 4, 1]), (0.99, [99, 41, 7, 1])],
)
def test_each_class_loses_its_share(kind, rate, wrong):
    """100, 41, 7 and 1 pictures; 20.5 and 3.5 and 0.5 are rounded up."""
    before = TARGETS.copy()
    noisy = noisy_targets(TARGETS, 4, rate, kind, seed=3)
    assert noisy.dtype == np.int64
    counts = changes(TARGETS, noisy, 4)
    assert (counts.sum(1) - counts.diagonal()).tolist() == wrong
    assert np.array_equal(TARGETS, before)


def test_symmetric_labels_are_uniform_over_the_other_classes():
    targets = np.repeat(np.arange(5), 20_000)
    counts = changes(targets, noisy_targets(targets, 5, 0.6, seed=1), 5)
    assert counts.diagonal().tolist() == [8000] * 5
    others = counts[~np.eye(5, dtype=bool)]
    # 12,000 draws with probability 1/4: a standard deviation of 47
    assert np.abs(others - 3000).max() < 5 * 47
    assert others.std() > 20  # drawn, not dealt


def test_pair_labels_are_the_next_class_and_the_first_after_the_last():
    counts = changes(TARGETS, noisy_targets(TARGETS, 4, 0.5, "pair"), 4)
    assert counts.tolist() == [[50, 50, 0, 0], [0, 20, 21, 0], [0, 0, 3, 4], [1, 0, 0, 0]]


def test_two_classes_swap():
    targets = np.array([0] * 10 + [1] * 10)
    for kind in ("symmetric", "pair"):
        assert changes(targets, noisy_targets(targets, 2, 0.3, kind), 2).tolist() == [
            [7, 3],
            [3, 7],
        ]


def test_a_higher_rate_changes_the_same_pictures_and_more():
    low, high = (noisy_targets(TARGETS, 4, rate, seed=2) for rate in (0.2, 0.6))
    changed = low != TARGETS
    assert changed.sum() < (high != TARGETS).sum()
    assert np.array_equal(low[changed], high[changed])
    pair = noisy_targets(TARGETS, 4, 0.2, "pair", seed=2)
    assert np.array_equal(pair != TARGETS, changed)


def test_the_draw_is_pinned():
    """The same on every machine.

    PCG64 seeded by [7, 1] begins with .770 .112 .189 .160 .432 .502 .993 .306 .326 .525: of class
    0 (even places) the two smallest are at 2 and 8, of class 1 at 1 and 3. The next ten numbers
    are .247 .036 .782 .907 .846 .342 .363 .521 .209 .676; doubled, they shift places 2 and 8 by 2
    and 1, places 1 and 3 by 1 and 2.
    """
    found = noisy_targets(np.array([0, 1] * 5), 3, 0.4, "symmetric", seed=7)
    assert found.tolist() == [0, 2, 2, 0, 0, 1, 0, 1, 1, 1]


def test_seeds_differ_and_repeat():
    draws = [noisy_targets(TARGETS, 4, 0.4, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "symetric"}, "unknown kind of label noise 'symetric': did you mean 'symmetric'?"),
        ({"rate": 1.0}, r"the rate of label noise must lie in \[0, 1\), not 1\.0"),
        ({"rate": float("nan")}, "not nan"),
        ({"num_classes": 1}, "at least two classes, not 1"),
        ({"num_classes": 3}, r"targets must lie in \[0, 3\), not 0 to 3"),
        ({"targets": np.zeros((5, 4))}, r"one class a picture, \[N\], not targets \[5, 4\]"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        noisy_targets(**{"targets": TARGETS, "num_classes": 4, "rate": 0.4, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("rate", "size", "changed"), [(0.29, 50, 15), (0.57, 50, 29), (0.5, 7, 4)])
def test_halves_are_rounded_up_whatever_the_floating_point_says(rate, size, changed):
    targets = np.zeros(size, dtype=np.int64)
    assert (noisy_targets(targets, 2, rate) != 0).sum() == changed
