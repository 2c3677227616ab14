import torch
from torch import nn

from foveal.models import Counts, count


def test_counts_a_small_network_as_by_hand():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 8 * (3 * 9) + 8 parameters
        nn.BatchNorm2d(8),  # 16
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),  # 8 * 9
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),  # 45
    )
    # 10 x 10 becomes 5 x 5: 25 * 8 * 27 + 25 * 8 * 9 + 8 * 5 multiply-adds.
    assert count(net, (3, 10, 10)) == Counts(224 + 16 + 72 + 45, 5400 + 1800 + 40)


def test_counting_changes_nothing():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    net[2].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    count(net, (3, 6, 6))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [m.training for m in net] == [True, True, False]
    assert net.training


def test_counts_networks_on_the_meta_device_and_in_half_precision():
    for kw in ({"device": "meta"}, {"dtype": torch.bfloat16}):
        assert count(nn.Conv2d(3, 4, 1, **kw), (3, 2, 2)) == Counts(16, 48)
