"""Official layouts of any width, against a reference written from the specification.

The reference below has the authors' structure and key names in plain torch; the library builds the
same network from timm's blocks. That both agree with the authors' own numbers is checked by
tests/test_replay_fixture.py.
"""

import copy
import math

import pytest
import torch
from comparison import assert_same, filled
from torch import nn

from foveal import official
from foveal.layers import CoordinateAttention
from foveal.models import create_model


class Attention(nn.Module):
    def __init__(self, channels, reduction=32):
        super().__init__()
        bottleneck = max(8, channels // reduction)
        self.conv1 = nn.Conv2d(channels, bottleneck, 1)
        self.bn1 = nn.BatchNorm2d(bottleneck)
        self.conv2 = nn.Conv2d(bottleneck, channels, 1)
        self.conv3 = nn.Conv2d(bottleneck, channels, 1)

    def forward(self, x):
        h, w = x.shape[2:]
        strips = torch.cat([x.mean(3, keepdim=True), x.mean(2)[..., None]], dim=2)
        t = self.bn1(self.conv1(strips))
        t = t * (t + 3).clamp(0, 6) / 6
        a_h = self.conv2(t[:, :, :h]).sigmoid()
        a_w = self.conv3(t[:, :, h : h + w].permute(0, 1, 3, 2)).sigmoid()
        return x * a_w * a_h


class Block(nn.Module):
    def __init__(self, inp, oup, stride, t, reduction=32):
        super().__init__()
        hidden = round(inp * t)
        self.shortcut = stride == 1 and inp == oup
        expand = [nn.Conv2d(inp, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        depthwise = [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
        ]
        project = [nn.Conv2d(hidden, oup, 1, bias=False), nn.BatchNorm2d(oup)]
        if t == 1:
            self.conv = nn.Sequential(*depthwise, *project)
        else:
            self.conv = nn.Sequential(*expand, *depthwise, Attention(hidden, reduction), *project)

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class Network(nn.Module):
    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    LAST = ((6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, width, num_classes, rounded=True, reduction=32):
        super().__init__()
        divisor = 4 if width == 0.1 else 8

        def channels(c):
            if not rounded:
                return round(c * width)
            n = max(divisor, math.floor((c * width + divisor / 2) / divisor) * divisor)
            return n + divisor if n < 0.9 * c * width else n

        inp = channels(32)
        features = [
            nn.Sequential(nn.Conv2d(3, inp, 3, 2, 1, bias=False), nn.BatchNorm2d(inp), nn.ReLU6())
        ]
        for t, c, n, s in self.STAGES + self.LAST:
            for i in range(n):
                features.append(Block(inp, channels(c), s if i == 0 else 1, t, reduction))
                inp = channels(c)
        self.features = nn.Sequential(*features)
        head = channels(1280) if width > 1 else 1280
        self.conv = nn.Sequential(nn.Conv2d(inp, head, 1, bias=False), nn.BatchNorm2d(head))
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(head, num_classes))

    def forward(self, x):
        x = self.conv(self.features(x)).clamp(0, 6)
        return self.classifier(x.mean((2, 3)))


@pytest.mark.parametrize(("channels", "reduction"), [(6, 32), (64, 32), (320, 16), (100, 5)])
def test_the_layer_in_both_layouts(channels, reduction):
    reference = filled(Attention(channels, reduction))
    x = torch.randn(2, channels, 5, 8).double()
    network_file = reference.state_dict()
    names = {"conv2": "conv_h", "conv3": "conv_w"}
    alone = {
        ".".join([names.get(k.split(".")[0], k.split(".")[0]), k.split(".")[1]]): v
        for k, v in network_file.items()
    }
    for state in (network_file, alone):
        layer = official.load_official(state)
        assert isinstance(layer, CoordinateAttention)
        assert_same(layer, copy.deepcopy(reference), x)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("inp", "oup", "t"), [(8, 8, 6), (8, 16, 4), (12, 12, 3), (13, 9, 6), (5, 5, 2.5), (8, 4, 1)]
)
def test_a_block_of_any_expansion(inp, oup, t, stride):
    reference = filled(Block(inp, oup, stride, t))
    block = official.load_official(reference.state_dict(), stride=stride)
    assert_same(block, reference, torch.randn(2, inp, 9, 7).double())


@pytest.mark.parametrize(
    ("width", "num_classes", "kw"),
    [
        (0.1, 10, {}),
        (0.25, 3, {}),
        (0.35, 2, {}),
        (1.4, 4, {}),
        (0.27, 5, {"rounded": False}),
        (0.5, 2, {"reduction": 16}),
    ],
)
def test_the_network_of_any_width(width, num_classes, kw):
    reference = filled(Network(width, num_classes, **kw))
    network = official.load_official({"state_dict": reference.state_dict(), "epoch": 3})
    assert not network.training
    assert network.num_classes == num_classes
    assert network.drop_rate == 0.1
    assert network.default_cfg["num_classes"] == num_classes
    assert_same(network, reference, torch.randn(2, 3, 65, 40).double())


def test_the_network_of_a_registered_width_is_the_registered_network():
    reference = Network(0.5, 7)
    network = official.load_official(reference.state_dict())
    named = create_model("mobilenetv2_050_coordinate", num_classes=7)
    named.load_state_dict(network.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(named.eval()(x), network(x))


@pytest.fixture(scope="module")
def state():
    return Network(0.1, 10).state_dict()


@pytest.mark.parametrize(
    "key",
    [
        "features.0.0.weight",
        "features.3.conv.6.conv1.weight",
        "features.5.conv.6.bn1.running_var",
        "features.1.conv.3.weight",
        "classifier.1.bias",
        "conv.0.weight",
    ],
)
def test_a_missing_key_is_named_in_the_authors_words(state, key):
    broken = {k: v for k, v in state.items() if k != key}
    with pytest.raises(ValueError, match=f"missing: {key}$"):
        official.load_official(broken)


def test_unexpected_keys_and_shapes_are_named(state):
    with pytest.raises(ValueError, match=r"unexpected: features.2.conv.9.weight, other$"):
        official.load_official(
            {**state, "features.2.conv.9.weight": torch.zeros(1), "other": torch.zeros(1)}
        )
    with pytest.raises(ValueError, match=r"shapes: features.4.conv.4.bias \[5\] where .* has \[24"):
        official.load_official({**state, "features.4.conv.4.bias": torch.zeros(5)})


@pytest.mark.parametrize("shape", [(5,), (0, 8, 1, 1), ()])
def test_tensors_of_other_dimensions_are_named(state, shape):
    given = {
        "features.2.conv.0.weight": state,
        "conv.0.weight": Block(8, 8, 1, 6).state_dict(),
        "conv1.weight": Attention(8).state_dict(),
    }
    for key, weights in given.items():
        with pytest.raises(ValueError, match=rf"shapes: {key} .* where the network has 4 dimens"):
            official.load_official({**weights, key: torch.zeros(shape)})


def test_the_network_is_called_by_its_name(state):
    with pytest.raises(ValueError, match="do not fit MobileNetV2 with coordinate attention: un"):
        official.load_official({**state, "other": torch.zeros(1)})


def test_weights_that_count_no_batches_load(state, caplog):
    for weights in (state, Block(8, 8, 1, 6).state_dict(), Attention(8).state_dict()):
        old = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
        caplog.clear()
        network = official.load_official(old)
        assert caplog.messages == [
            "the checkpoint counts no batches: all num_batches_tracked are 0"
        ]
        assert len(network.state_dict()) == len(weights)


def test_bottlenecks_that_follow_no_reduction_are_refused():
    layer = Attention(64, reduction=4)  # 64 // r is 12 or 10, never 11
    layer.conv1, layer.bn1 = nn.Conv2d(64, 11, 1), nn.BatchNorm2d(11)
    layer.conv2 = layer.conv3 = nn.Conv2d(11, 64, 1)
    with pytest.raises(ValueError, match=r"bottlenecks \(11 of 64 channels\) .* no reduction r"):
        official.load_official(layer.state_dict())


@pytest.mark.parametrize(
    "other", ["resnet18", "mobilenetv2_050", "mobilenetv2_050_coordinate", "vit_tiny_patch16_224"]
)
def test_other_networks_are_no_official_ones(other):
    with torch.device("meta"):
        foreign = create_model(other).state_dict()
    with pytest.raises(ValueError, match=r"of no source known here; known are houqb/CoordAtt"):
        official.load_official(foreign)


def test_hints_are_checked(state):
    with pytest.raises(TypeError, match="unknown hint 'strid': did you mean 'stride'"):
        official.load_official(state, strid=2)
    with pytest.raises(ValueError, match="only for an inverted residual alone"):
        official.load_official(state, stride=2)
    with pytest.raises(ValueError, match="stride must be 1 or 2, not 3"):
        official.load_official(Block(8, 8, 1, 6).state_dict(), stride=3)


def test_files_of_every_kind_load(tmp_path, state):
    path = tmp_path / "mbv2_ca.pth.tar"
    wrapped = {f"module.{k}": v for k, v in state.items()}
    torch.save({"state_dict": wrapped, "optimizer": {"state": {}}, "best_acc1": 74.3}, path)
    loaded = official.load_official(path)
    assert torch.equal(loaded.classifier.bias, state["classifier.1.bias"])
    assert torch.equal(official.load_official(str(path)).conv_stem.weight, loaded.conv_stem.weight)
