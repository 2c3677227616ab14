"""Numbers of the parts of a picture against loops over its pixels."""

import numpy as np
import pytest

from foveal.metrics.saliency_parts import blocks_of, parts_of


def test_a_small_picture_by_hand():
    """Mean row 0, mean column 1: blocks end after row 0 and column 1, plus one."""
    truth = np.array([[False, True, False, False], [False] * 4])
    prediction = np.array([[0.1, 0.9, 0.2, 0.6], [0.0, 0.4, 1.0, 0.3]])
    parts = parts_of(prediction, truth, 0.5)
    assert parts.pixels.tolist() == [[[1, 1], [2, 0]], [[2, 0], [2, 0]]]
    assert parts.sums.ravel().tolist() == pytest.approx([0.1, 0.9, 0.8, 0, 0.4, 0, 1.3, 0])
    squares = [0, 0, 2 * 0.2**2, 0, 2 * 0.2**2, 0, 2 * 0.35**2, 0]
    assert parts.squares.ravel().tolist() == pytest.approx(squares)
    assert parts.bright.tolist() == [2, 1]
    background, foreground = (dict(enumerate(side)) for side in parts.levels.tolist())
    assert {k for k, v in foreground.items() if v} == {229}  # 229.5, truncated
    assert {k for k, v in background.items() if v} == {0, 25, 51, 76, 102, 153, 255}


@pytest.mark.parametrize("seed", range(3))
def test_parts_make_up_the_picture(seed):
    rng = np.random.default_rng(seed)
    prediction, truth = rng.random((13, 17)), rng.random((13, 17)) < 0.2
    truth[:5] = False
    parts = parts_of(prediction, truth, 0.7)
    assert parts.pixels.sum() == parts.levels.sum() == truth.size
    for side, mask in enumerate((~truth, truth)):
        values = prediction[mask]
        counts = np.histogram(np.floor(255 * values), np.arange(257))[0]
        assert parts.levels[side].tolist() == counts.tolist()
        assert parts.bright[side] == sum(v >= 0.7 for v in values.tolist())
        assert parts.sums[..., side].sum() == pytest.approx(sum(values.tolist()))
    for (i, j), (rows, columns) in blocks_of(truth).items():
        for side, mask in enumerate((~truth, truth)):
            values = prediction[rows, columns][mask[rows, columns]]
            assert parts.pixels[i, j, side] == len(values)
            if len(values):
                expected = len(values) * np.var(values)
                assert parts.squares[i, j, side] == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(
    ("marked", "cut"),
    [
        ([(0, 0)], (1, 1)),
        ([(2, 1), (3, 2)], (3, 3)),  # means 2.5 and 1.5, rounded to the even 2 and 2
        ([(3, 2), (4, 3)], (5, 3)),  # 3.5 and 2.5: 4 and 2
        ([(5, 6)], (6, 7)),  # the last row and column: nothing is left for the other blocks
        ([], (1, 1)),
    ],
)
def test_where_the_blocks_meet(marked, cut):
    truth = np.zeros((6, 7), bool)
    for place in marked:
        truth[place] = True
    whole = np.arange(42).reshape(6, 7)
    blocks = {place: whole[block].tolist() for place, block in blocks_of(truth).items()}
    y, x = cut
    assert blocks[0, 0] == whole[:y, :x].tolist()
    assert blocks[0, 1] == whole[:y, x:].tolist()
    assert blocks[1, 0] == whole[y:, :x].tolist()
    assert blocks[1, 1] == whole[y:, x:].tolist()
