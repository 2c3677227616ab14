import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as transforms

from foveal.explanation import deletion_insertion


class Linear(nn.Module):
    """Two logits: a weighted sum of all pixels, and 0."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.largest = 0

    def forward(self, x):
        self.largest = max(self.largest, len(x))
        one = (x * self.weight).sum((1, 2, 3))
        return torch.stack([one, torch.zeros_like(one)], 1)


def test_curves_and_areas_of_a_linear_network_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    network = Linear(torch.tensor([[[1.0, 1.0], [0.0, -1.0]]]))
    maps = torch.tensor([[[0.5, 0.9], [0.1, 0.0]]])  # 2, then 1, 3, 4 are deleted
    found = deletion_insertion(network, x, maps, 0, steps=4, background=0, score="logit")
    assert found.deletion_curve.tolist() == [[-1.0, -3.0, -4.0, -4.0, 0.0]]
    assert found.insertion_curve.tolist() == [[0.0, 2.0, 3.0, 3.0, -1.0]]
    assert found.deletion.tolist() == [(-2 - 3.5 - 4 - 2) / 4]
    assert found.insertion.tolist() == [(1 + 2.5 + 3 + 1) / 4]
    assert found.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_steps_that_do_not_divide_the_pixels_weigh_by_their_width():
    x = torch.tensor([[[[1.0, 2.0, 4.0, 8.0, 16.0]]]])
    network = Linear(torch.ones(1, 1, 5))
    found = deletion_insertion(network, x, x[:, 0], 0, steps=2, background=0, score="logit")
    # floor(5 / 2) = 2 pixels, then the other 3.
    assert found.fractions.tolist() == pytest.approx([0, 0.4, 1])
    assert found.deletion_curve.tolist() == [[31.0, 7.0, 0.0]]
    assert found.deletion.item() == pytest.approx(0.4 * 19 + 0.6 * 3.5)
    assert found.insertion.item() == pytest.approx(0.4 * 12 + 0.6 * 27.5)


@pytest.mark.parametrize("chunk_size", [3, 64])
def test_batches_are_loops_over_pictures_and_steps(chunk_size):
    torch.manual_seed(0)
    x, maps = torch.randn(3, 3, 12, 14), torch.rand(3, 12, 14)
    maps[1] = (maps[1] * 4).round()  # ties
    network = Linear(torch.randn(3, 12, 14) / 10)
    colour = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    found = deletion_insertion(
        network, x, maps, [0, 1, 0], steps=9, deleted=colour, chunk_size=chunk_size
    )
    assert network.largest <= max(chunk_size, 3)
    blurred = transforms.gaussian_blur(x, [11, 11], [5.0, 5.0])
    for b, target in enumerate([0, 1, 0]):
        pixels = sorted(range(168), key=lambda i: (-maps[b].flatten()[i].item(), i))
        for before, after, curve, area in (
            (x[b], colour.expand(3, 12, 14), found.deletion_curve, found.deletion),
            (blurred[b], x[b], found.insertion_curve, found.insertion),
        ):
            scores, numbers = [], [t * 168 // 9 for t in range(10)]
            for number in numbers:
                seen = before.clone()
                for i in pixels[:number]:
                    seen[:, i // 14, i % 14] = after[:, i // 14, i % 14]
                scores.append(network(seen[None]).softmax(1)[0, target].item())
            np.testing.assert_allclose(curve[b], scores, rtol=1e-4, atol=1e-6)
            expected = np.trapezoid(scores, np.array(numbers) / 168)
            assert area[b].item() == pytest.approx(expected, rel=1e-4)


def test_equal_values_go_from_the_top_in_rows():
    x = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]])
    network = Linear(torch.ones(1, 2, 2))
    found = deletion_insertion(
        network, x, torch.zeros(1, 2, 2), 0, steps=4, background=0, score="logit"
    )
    assert found.deletion_curve.tolist() == [[1111.0, 1110.0, 1100.0, 1000.0, 0.0]]


def test_a_map_of_what_counts_is_better_than_its_opposite():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 8, 8)
    weight = torch.rand(3, 8, 8)
    maps = (x * weight).sum(1)
    good, bad = (deletion_insertion(Linear(weight), x, m, 0, background=0) for m in (maps, -maps))
    assert (good.deletion < bad.deletion).all()
    assert (good.insertion > bad.insertion).all()


def test_scores_and_states():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    probability = deletion_insertion(network, x, x[:, 0], steps=3)
    sigmoid = deletion_insertion(network, x, x[:, 0], steps=3, score="sigmoid")
    logit = deletion_insertion(network, x, x[:, 0], steps=3, score="logit")
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with torch.no_grad():
        logits = network.eval()(x)
    torch.testing.assert_close(probability.deletion_curve[:, 0], logits.softmax(1).amax(1))
    torch.testing.assert_close(logit.deletion_curve[:, 0], logits.amax(1))
    torch.testing.assert_close(sigmoid.insertion_curve[:, -1], logits.amax(1).sigmoid())


def test_small_and_empty_batches():
    network = Linear(torch.ones(1, 1, 1))
    one = deletion_insertion(network, torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1), 0, steps=2)
    assert one.deletion_curve.shape == (1, 3)
    none = deletion_insertion(network, torch.ones(0, 1, 1, 1), torch.ones(0, 1, 1), 0, steps=2)
    assert none.deletion.shape == (0,)
    assert none.insertion_curve.shape == (0, 3)


def test_wrong_input_is_told_in_one_sentence():
    network, x, maps = Linear(torch.ones(1, 2, 2)), torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2)
    for change, message in (
        ({"maps": torch.ones(1, 3, 2)}, r"maps must be \[B, H, W\]"),
        ({"maps": maps * torch.nan}, "maps must be finite"),
        ({"steps": 0}, "steps and chunk_size must be at least 1"),
        ({"score": "softmx"}, "did you mean 'softmax'"),
        ({"deleted": "blurr"}, "did you mean 'blur'"),
        ({"deleted": torch.ones(5)}, "a baseline must broadcast"),
        ({"targets": 2}, "no class 2"),
        ({"targets": [[0, 1]]}, "one class for each picture"),
    ):
        with pytest.raises(ValueError, match=message):
            deletion_insertion(network, x, **({"maps": maps} | change))
    with pytest.raises(ValueError, match="one score per class"):
        deletion_insertion(nn.Identity(), x, maps)
