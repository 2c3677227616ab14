import math

import pytest
import torch

from foveal.losses import LOSSES, create_loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]])
TARGET = torch.tensor([0, 2])
# -log of the softmax, worked out with math: one row per picture, one column per class.
NLL = [
    [math.log(sum(math.exp(z) for z in row)) - value for value in row] for row in LOGITS.tolist()
]


def test_cross_entropy_by_hand():
    expected = (NLL[0][0] + NLL[1][2]) / 2
    assert create_loss("cross_entropy", 3)(LOGITS, TARGET).item() == pytest.approx(expected)


def test_class_weights_divide_by_their_sum():
    loss = create_loss("cross_entropy", 3, torch.tensor([1.0, 5.0, 3.0]))
    expected = (1 * NLL[0][0] + 3 * NLL[1][2]) / (1 + 3)
    assert loss(LOGITS, TARGET).item() == pytest.approx(expected)


def test_label_smoothing_spreads_its_share_over_all_classes():
    loss = create_loss("cross_entropy", 3, label_smoothing=0.3)
    smooth = [0.7 * row[k] + 0.3 * sum(row) / 3 for row, k in zip(NLL, (0, 2), strict=True)]
    assert loss(LOGITS, TARGET).item() == pytest.approx(sum(smooth) / 2)


def test_soft_targets_are_taken():
    soft = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    expected = (0.25 * NLL[0][0] + 0.75 * NLL[0][1] + NLL[1][2]) / 2
    assert create_loss("cross_entropy", 3)(LOGITS, soft).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_a_finite_scalar_with_finite_gradients_at_extremes(name):
    loss = create_loss(name, 3)
    for scale in (0.0, 1.0, 1e4):
        logits = (LOGITS * scale).requires_grad_()
        value = loss(logits, TARGET)
        assert value.shape == ()
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(
        ValueError, match="unknown loss 'cross_entrpy': did you mean 'cross_entropy'"
    ):
        create_loss("cross_entrpy", 3)


@pytest.mark.parametrize(
    "argument", ["label_smothing", "num_classes", "weight", "name", "reduction", "reduce"]
)
def test_an_unknown_argument_is_refused_in_one_sentence(argument):
    message = f"unknown argument of the loss cross_entropy '{argument}'"
    with pytest.raises(ValueError, match=message) as error:
        create_loss("cross_entropy", 3, **{argument: 1})
    assert "\n" not in str(error.value)
    if argument == "label_smothing":
        assert "did you mean 'label_smoothing'" in str(error.value)


@pytest.mark.parametrize(
    ("name", "argument", "value", "kind"),
    [
        ("online_label_smoothing", "freeze_at", "abc", "a number or None"),
        ("online_label_smoothing", "alpha", True, "a number"),
        ("online_label_smoothing", "hard_weight", "x", "a number or None"),
        ("online_label_smoothing", "init", 3, "a word"),
        ("generalized_cross_entropy", "q", "abc", "a number"),
        ("symmetric_cross_entropy", "ignore_index", 1.5, "a whole number"),
        ("cross_entropy", "label_smoothing", "abc", "a number"),
    ],
)
def test_arguments_of_another_kind(name, argument, value, kind):
    message = f"argument {argument} of the loss {name} must be {kind}, not {value!r}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        create_loss(name, 3, **{argument: value})


@pytest.mark.parametrize("name", LOSSES)
def test_class_weights_of_any_device_but_of_one_length(name):
    assert create_loss(name, 3, torch.ones(3, device="meta")).weight.is_meta
    with pytest.raises(ValueError, match=r"one number for each of 3 classes, not \[4\]"):
        create_loss(name, 3, torch.ones(4))
