import numpy as np
import pytest

from foveal.data.scenes import labels

#: a near item (2) over a far one (1)
TWO = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 2, 2, 2, 0],
        [0, 1, 1, 2, 2, 2, 0],
        [0, 0, 0, 2, 2, 2, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    np.uint8,
)


def test_boxes_are_tight():
    assert labels.boxes(TWO, 2).tolist() == [[1, 1, 5, 4], [3, 2, 6, 5]]


def test_boundaries_run_in_the_nearer_item():
    expected = [
        "0000000",
        "0111100",
        "0101110",
        "0111010",
        "0001110",
        "0000000",
    ]
    found = labels.boundaries(TWO, [0, 1])
    assert ["".join(map(str, row)) for row in found.tolist()] == expected
    nearer_first = labels.boundaries(TWO, [1, 0])
    assert nearer_first[2].tolist() == [0, 1, 1, 0, 0, 1, 0]


def test_the_edge_of_the_picture_is_no_boundary():
    assert not labels.boundaries(np.ones((4, 5), np.uint8), [0]).any()


def test_the_skeleton_of_a_bar_is_its_middle_line():
    bars = np.zeros((20, 40), np.uint8)
    bars[2:7, 3:30] = 1
    bars[9:18, 33:36] = 2
    lines = labels.skeleton(bars, labels.boxes(bars, 2))
    assert lines[4, 6:27].all()
    assert lines[2:7, 6:27].sum() == 21
    assert lines[11:16, 34].all()
    assert (bars[lines > 0] > 0).all()


@pytest.mark.parametrize(
    ("colour", "size", "salient"),
    [(200, 8, True), (120, 8, False), (200, 3, False)],
)
def test_what_is_small_or_pale_is_not_salient(colour, size, salient):
    instances = np.zeros((40, 40), np.uint8)
    instances[2:22, 2:22] = 1
    instances[28 : 28 + size, 28 : 28 + size] = 2
    image = np.full((40, 40, 3), 100, np.uint8)
    image[instances == 2] = colour
    found = labels.saliency(instances, image, labels.boxes(instances, 2))
    assert found[5, 5] == 1  # the largest, though of the ground's colour
    assert (found[instances == 2] == salient).all()
    assert not found[instances == 0].any()
