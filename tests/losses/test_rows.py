import pytest
import torch

from foveal.losses.rows import to_rows


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 5)])
def test_pixels_become_rows_in_order(shape):
    target = torch.arange(torch.Size(shape).numel()).reshape(shape) % 7
    logits = torch.nn.functional.one_hot(target, 7).movedim(-1, 1).to(torch.float16)
    rows = to_rows(logits, target, ignore_index=3)
    assert rows.logits.dtype == torch.float32
    assert rows.shape == shape
    assert rows.counted.equal(target.flatten() != 3)
    kept = rows.counted
    assert rows.logits.argmax(1)[kept].equal(rows.target[kept])
    assert not rows.target[~kept].any()
    soft = to_rows(logits, logits.float())
    assert soft.target.equal(soft.logits)
    assert soft.counted is None


def test_double_precision_stays():
    assert to_rows(torch.zeros(2, 3).double(), torch.zeros(2, 3)).logits.dtype == torch.float64


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        ((2, 3), torch.zeros(3, dtype=torch.int64), r"not \[2, 3\] and \[3\]"),
        ((2, 3), torch.zeros(2, 1, dtype=torch.int64), r"not \[2, 3\] and \[2, 1\]"),
        ((2, 3, 4), torch.zeros(2, dtype=torch.int64), r"not \[2, 3, 4\] and \[2\]"),
        ((3,), torch.zeros(3), r"not \[3\] and \[3\]"),
        ((2, 3), torch.zeros(2), "class indices must be int64, not torch.float32"),
        ((2, 3), torch.zeros(2, 3, dtype=torch.int64), "probabilities must be floats"),
    ],
)
def test_shapes_and_types_that_do_not_fit(logits, target, message):
    with pytest.raises(ValueError, match=message):
        to_rows(torch.zeros(logits), target)
