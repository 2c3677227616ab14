import pytest
import torch

from foveal.mining.functional import compose_label_map, enumerate_pairs


def test_pairs_are_in_the_order_of_pictures():
    labels = torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    assert enumerate_pairs(labels).tolist() == [[0, 1], [2, 0], [2, 1]]
    assert enumerate_pairs(torch.zeros(2, 3)).shape == (0, 2)
    with pytest.raises(ValueError, match=r"labels must be \[N, C\], not \[3\]"):
        enumerate_pairs(torch.ones(3))


# Three pairs of one picture, a row of five pixels, given out of the order of their classes.
PAIRS = torch.tensor([[0, 7], [0, 2], [0, 4]])
MASKS = torch.tensor([[[1, 1, 1, 1, 0]], [[0, 1, 1, 0, 0]], [[0, 0, 1, 1, 0]]], dtype=torch.bool)
SCORES = torch.tensor([[[0.9, 0.5, 0.9, 0.6, 0]], [[0, 0.5, 0.2, 0, 0]], [[0, 0, 0.9, 0.7, 0]]])


@pytest.mark.parametrize(
    ("conflict", "expected"),
    [
        ("score", [8, 3, 5, 5, 0]),  # ties to the lower class
        ("smaller", [8, 3, 3, 5, 0]),
        ("ignore", [8, 255, 255, 255, 0]),
    ],
)
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_conflicts_do_not_depend_on_the_order_of_pairs(conflict, expected, order):
    labels = compose_label_map(PAIRS[order], MASKS[order], SCORES[order], 1, conflict)
    assert labels.tolist() == [[expected]]
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("ignore", [255, -1])
def test_saliency_comes_after_the_conflicts(ignore):
    saliency = torch.tensor([[[0.5, 0.4, 0.6, 0.0, 0.9]]])
    labels = compose_label_map(
        PAIRS, MASKS, SCORES, 1, "ignore", saliency=saliency, ignore_index=ignore
    )
    assert labels.tolist() == [[[8, ignore, ignore, ignore, ignore]]]


def test_a_picture_without_a_class_is_background_or_ignored():
    one, mask = torch.tensor([[1, 0]]), torch.zeros(1, 1, 2)
    assert compose_label_map(one, mask, mask, 3).tolist() == [[[0, 0]]] * 3
    labels = compose_label_map(one, mask, mask, 3, empty="ignore")
    assert labels.tolist() == [[[255, 255]], [[0, 0]], [[255, 255]]]
    assert compose_label_map(one[:0], mask[:0], mask[:0], 2).tolist() == [[[0, 0]]] * 2


def test_scores_in_half_precision_and_large_areas():
    masks = torch.ones(2, 300, 300, dtype=torch.bool)
    masks[1, 0, 0] = False  # one pixel less, which half precision does not see
    scores = torch.zeros(2, 300, 300, dtype=torch.float16)
    labels = compose_label_map(torch.tensor([[0, 0], [0, 1]]), masks, scores, 1, "smaller")
    assert (labels == 2).sum() == masks[1].sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conflict": "scores"}, "unknown conflict rule 'scores': did you mean 'score'"),
        ({"empty": "ignor"}, "did you mean 'ignore'"),
        ({"pairs": PAIRS[:2]}, r"masks and scores must be \[P, H, W\] with P = 2 pairs"),
        ({"pairs": PAIRS[:, :1]}, r"pairs must be \[P, 2\]"),
        ({"num_images": 0}, "a pair names picture 0, and num_images is 0"),
        ({"ignore_index": 8}, "ignore_index 8 is the label of class 7"),
        ({"saliency": torch.zeros(1, 5)}, r"saliency must be \[1, 1, 5\], not \[1, 5\]"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    call = {"pairs": PAIRS, "masks": MASKS, "scores": SCORES, "num_images": 1, **change}
    with pytest.raises(ValueError, match=message):
        compose_label_map(**call)
