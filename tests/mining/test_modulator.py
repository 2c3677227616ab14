import numpy as np
import pytest
import torch
from torch import nn

from foveal.config import MiningConfig
from foveal.mining import Modulator, RegionMiner, presence


def test_presence_by_hand():
    cams = torch.tensor([[[3.0, 1.0], [2.0, -4.0]]]).half()
    logits = torch.tensor([7.0]).half()
    assert presence(logits, cams, "topk", 2).item() == 2.5
    assert presence(logits, cams, "topk", 99).item() == 0.5
    assert presence(logits, cams, "logit").item() == 7.0
    mean = np.mean(np.exp([3.0, 1.0, 2.0, -4.0]))
    assert presence(logits, cams, "logsumexp").item() == pytest.approx(np.log(mean), rel=1e-6)
    assert presence(logits, cams).dtype == torch.float32


def test_topk_does_not_shrink_with_the_picture():
    cams = torch.zeros(2, 1, 30, 30)
    cams[0, 0, :3, :3] = cams[1, 0, :3, :3] = 1
    small = presence(cams.mean((2, 3)), cams[..., :6, :6])
    assert torch.equal(presence(cams.mean((2, 3)), cams), small)


class Network(nn.Module):
    """Activations are the channels; tells whether it ran in training."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        assert not self.training
        return x.mean((2, 3)), self.norm(x)


def batches(seed=0, count=50):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 2, 4, 5, generator=generator)
    labels = (torch.rand(count, 2, generator=generator) < 0.4).long()
    return images, labels


@pytest.mark.parametrize("quantile", [None, 0.5, 1.0])
def test_thresholds_are_quantiles_of_pictures_without_the_class(quantile):
    images, labels = batches()
    model = Network().train()
    c = MiningConfig(top_k=3, quantile=0.9)
    loader = list(zip(images.split(7), labels.split(7), strict=True))
    modulator = Modulator(2, c).calibrate(model, loader, quantile)
    assert model.training
    assert modulator.calibrated
    maps = images.flatten(2).numpy() / np.sqrt(1 + 1e-5)
    top = np.sort(maps, 2)[:, :, -3:].mean(2)
    for k in range(2):
        negatives = top[labels[:, k].numpy() == 0, k]
        expected = np.quantile(negatives, quantile or 0.9)
        assert modulator.thresholds[k].item() == pytest.approx(expected, rel=1e-5)


def test_a_class_in_every_picture_is_held_to_its_probability():
    images, labels = batches()
    labels[:, 1] = 1
    c = MiningConfig(top_k=3, keep=0.52)
    with pytest.warns(UserWarning, match="no picture without class 1: .* at least 0.52"):
        modulator = Modulator(2, c).calibrate(Network(), [(images, labels)])
    assert modulator.thresholds.isnan().tolist() == [False, True]
    classes = torch.tensor([0, 1, 1])
    logits, cams = torch.tensor([0.0, 0.1, 0.05]), torch.full((3, 4, 5), 9.0)
    q = modulator.statistic(logits, cams, classes)
    assert q.tolist() == pytest.approx([9.0, 1 / (1 + np.exp(-0.1)), 1 / (1 + np.exp(-0.05))])
    assert modulator(q, q, classes).tolist() == [True, True, False]


def test_at_the_threshold_a_pair_goes_on():
    modulator = Modulator(1, MiningConfig(top_k=1)).calibrate(
        lambda x: (x.mean((2, 3)), x), [(torch.full((3, 1, 2, 2), 1.7), torch.zeros(3, 1))]
    )
    q = torch.tensor([1.7, 1.7 - 1e-6, 2.0])
    assert modulator(q, q, torch.zeros(3, dtype=torch.int64)).tolist() == [True, False, True]


def test_the_mined_object_ends_where_the_background_begins():
    # A bright object of three strengths on ground that looks like pictures without it.
    generator = torch.Generator().manual_seed(0)
    ground = 0.3 * torch.rand(40, 1, 16, 16, generator=generator)
    picture = ground[:1].clone()
    for k, value in enumerate((4.0, 1.5, 0.6)):
        picture[0, 0, 4:8, 4 + 3 * k : 7 + 3 * k] = value

    def model(x):
        return x.mean((2, 3)), x

    modulator = Modulator(1, MiningConfig()).calibrate(model, [(ground, torch.zeros(40, 1))])
    miner = RegionMiner(model, modulator.config, modulator)
    result = miner.mine(picture, torch.ones(1, 1))
    expected = torch.zeros(16, 16, dtype=torch.uint8)
    for k in range(3):
        expected[4:8, 4 + 3 * k : 7 + 3 * k] = k + 1
    assert torch.equal(result.step_map[0], expected)
    assert result.reason.tolist() == [1]


def test_thresholds_are_saved_with_the_weights():
    modulator = Modulator(2, MiningConfig()).calibrate(Network(), [batches()])
    other = Modulator(2, MiningConfig())
    other.load_state_dict(modulator.state_dict())
    assert other.calibrated
    assert torch.equal(other.thresholds, modulator.thresholds)


def test_what_does_not_fit_is_named():
    images, labels = batches()
    with pytest.raises(ValueError, match="no picture to calibrate"):
        Modulator(2).calibrate(Network(), [])
    with pytest.raises(ValueError, match=r"labels must be \[N, 3\]"):
        Modulator(3).calibrate(Network(), [(images, labels)])
    with pytest.raises(ValueError, match=r"quantile must lie in \[0, 1\], not 95"):
        Modulator(2).calibrate(Network(), [(images, labels)], quantile=95)
    modulator = Modulator(2).calibrate(Network(), [(images, labels)])
    three = torch.eye(3)
    with pytest.raises(ValueError, match="thresholds of 2 classes, and the labels name class 2"):
        RegionMiner(lambda x: (x.mean((2, 3)), x), None, modulator).mine(
            torch.rand(3, 3, 4, 4), three
        )
