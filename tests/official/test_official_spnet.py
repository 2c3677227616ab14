"""The authors' layouts, against a reference written from the specification.

The reference below has the authors' structure, key names and defects in plain torch; that it agrees
with the authors' own numbers is seen by tests/test_replay_fixture.py, which compares foveal with
them.
"""

import json
from functools import partial
from pathlib import Path

import comparison
import pytest
import timm
import torch
import torch.nn.functional as F
from comparison import filled
from torch import nn

from foveal import official
from foveal.layers import MixedPooling, StripPooling
from foveal.models import create_model
from foveal.official import coordinate_attention, mobilenext, spnet, triplet_attention

KEYS = Path(__file__).parents[1] / "fixtures" / "spnet" / "official_keys.json"
assert_same = partial(comparison.assert_same, training=1e-8)
up = partial(F.interpolate, mode="bilinear", align_corners=True)


def conv_bn(a, b, kernel, *more, stride=1, dilation=1):
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(k // 2 * dilation for k in kernel)
    conv = nn.Conv2d(a, b, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(b), *more)


class SPBlock(nn.Module):
    def __init__(self, inplanes, outplanes):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inplanes, outplanes, (3, 1))
        self.conv2, self.bn2 = conv_bn(inplanes, outplanes, (1, 3))
        self.conv3 = nn.Conv2d(outplanes, outplanes, 1)

    def forward(self, x):
        size = x.shape[2:]
        x1 = self.bn1(self.conv1(F.adaptive_avg_pool2d(x, (None, 1)))).expand(-1, -1, *size)
        x2 = self.bn2(self.conv2(F.adaptive_avg_pool2d(x, (1, None)))).expand(-1, -1, *size)
        return self.conv3(F.relu(x1 + x2)).sigmoid()


class Bottleneck(nn.Module):
    def __init__(self, inplanes, planes, stride=1, dilation=1, spm=False, downsample=False):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inplanes, planes, 1)
        self.conv2, self.bn2 = conv_bn(planes, planes, 3, stride=stride, dilation=dilation)
        self.conv3, self.bn3 = conv_bn(planes, 4 * planes, 1)
        self.downsample = conv_bn(inplanes, 4 * planes, 1, stride=stride) if downsample else None
        self.spm = SPBlock(planes, planes) if spm else None

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        if self.spm is not None:
            y = y * self.spm(y)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class StripPool(nn.Module):
    def __init__(self, channels, pool_size=(20, 12)):
        super().__init__()
        c, self.pool_size = channels // 4, pool_size
        self.conv1_1, self.conv1_2 = (conv_bn(channels, c, 1, nn.ReLU()) for _ in range(2))
        self.conv2_0, self.conv2_1, self.conv2_2 = (conv_bn(c, c, 3) for _ in range(3))
        self.conv2_3, self.conv2_4 = conv_bn(c, c, (1, 3)), conv_bn(c, c, (3, 1))
        self.conv2_5, self.conv2_6 = (conv_bn(c, c, 3, nn.ReLU()) for _ in range(2))
        self.conv3 = conv_bn(2 * c, channels, 1)

    def forward(self, x):
        size = x.shape[2:]
        a, b = self.conv1_1(x), self.conv1_2(x)
        a1 = up(self.conv2_1(F.adaptive_avg_pool2d(a, self.pool_size[0])), size)
        a2 = up(self.conv2_2(F.adaptive_avg_pool2d(a, self.pool_size[1])), size)
        b1 = up(self.conv2_3(F.adaptive_avg_pool2d(b, (1, None))), size)
        b2 = up(self.conv2_4(F.adaptive_avg_pool2d(b, (None, 1))), size)
        short = self.conv2_5(F.relu(self.conv2_0(a) + a1 + a2))
        long = self.conv2_6(F.relu(b1 + b2))
        return F.relu(x + self.conv3(torch.cat([short, long], 1)))


def score(a, b, classes):
    return nn.Sequential(*conv_bn(a, b, 3, nn.ReLU(), nn.Dropout2d(0.0)), nn.Conv2d(b, classes, 1))


class SPHead(nn.Module):
    def __init__(self, channels, classes, pool_size=(20, 12)):
        super().__init__()
        self.trans_layer = conv_bn(channels, channels // 2, 1, nn.ReLU())
        self.strip_pool1 = StripPool(channels // 2, pool_size)
        self.strip_pool2 = StripPool(channels // 2, pool_size)
        self.score_layer = score(channels // 2, channels // 4, classes)

    def forward(self, x):
        return self.score_layer(self.strip_pool2(self.strip_pool1(self.trans_layer(x))))


class FCNHead(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.conv5 = score(channels, channels // 4, classes)

    def forward(self, x):
        return self.conv5(x)


class ResNet(nn.Module):
    def __init__(self, depths, spm, in_chans=3, classes=None):
        super().__init__()
        self.conv1 = nn.Sequential(
            *conv_bn(in_chans, 64, 3, nn.ReLU(), stride=2),
            *conv_bn(64, 64, 3, nn.ReLU()),
            nn.Conv2d(64, 128, 3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(128)
        channels = 128
        for stage, depth in enumerate(depths, start=1):
            planes = 32 * 2**stage
            blocks = []
            for i in range(depth):
                dilation = {3: 1 if i == 0 else 2, 4: 4 * 2**i}.get(stage, 1)
                gate = spm and (stage == 4 or i == depth - 1)
                stride = 2 if (stage, i) == (2, 0) else 1
                blocks.append(Bottleneck(channels, planes, stride, dilation, gate, i == 0))
                channels = 4 * planes
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        if classes:
            self.fc = nn.Linear(channels, classes)

    def levels(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        c3 = self.layer3(self.layer2(self.layer1(x)))
        return c3, self.layer4(c3)


class SPNet(nn.Module):
    def __init__(self, depths, classes=4, spm=True, aux=True, in_chans=3):
        super().__init__()
        self.pretrained = ResNet(depths, spm, in_chans)
        self.head = SPHead(2048, classes)
        if aux:
            self.auxlayer = FCNHead(1024, classes)

    def forward(self, x):
        c3, c4 = self.pretrained.levels(x)
        y = up(self.head(c4), x.shape[2:])
        if self.training and hasattr(self, "auxlayer"):
            return y, up(self.auxlayer(c3), x.shape[2:])
        return y


def picture(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("inplanes", "outplanes"), [(6, 6), (8, 3), (3, 8)])
def test_gates_of_any_channels(inplanes, outplanes):
    reference = filled(SPBlock(inplanes, outplanes))
    layer = official.load_official(reference.float().state_dict()).double()
    assert isinstance(layer, StripPooling)
    x = picture(2, inplanes, 5, 7)
    torch.testing.assert_close(layer.gate(x), reference.double()(x))


@pytest.mark.parametrize("spm", [True, False])
@pytest.mark.parametrize(
    ("inplanes", "arguments", "hints"),
    [
        (32, {}, {}),
        (32, {"dilation": 4}, {"dilation": 4}),
        (12, {"downsample": True, "stride": 2}, {"stride": 2}),
        (12, {"downsample": True, "dilation": 2}, {"dilation": 2}),
    ],
)
def test_bottlenecks(spm, inplanes, arguments, hints):
    reference = filled(Bottleneck(inplanes, 8, spm=spm, **arguments))
    state = reference.float().state_dict()
    if spm:
        block = official.load_official(state, **hints)
    else:  # the keys of any ResNet's block
        block = spnet.bottleneck(state, hints.get("stride", 1), hints.get("dilation", 1))
    assert_same(block, reference.double(), picture(2, inplanes, 9, 10))


@pytest.mark.parametrize("hints", [{}, {"pool_sizes": (7, 3)}])
def test_mixed_pooling_and_both_heads(hints):
    sizes = tuple(hints.values())
    for reference in (StripPool(16, *sizes), SPHead(16, 5, *sizes)):
        module = official.load_official(filled(reference).float().state_dict(), **hints)
        assert_same(module, reference.double(), picture(2, 16, 9, 13))
    assert isinstance(official.load_official(StripPool(8).state_dict()), MixedPooling)
    reference = filled(FCNHead(16, 5))
    module = official.load_official(reference.float().state_dict())
    assert_same(module, reference.double(), picture(2, 16, 9, 13))


@pytest.mark.parametrize(
    "arguments", [{}, {"spm": False, "aux": False}, {"in_chans": 1, "classes": 2}]
)
def test_whole_networks_with_the_prefixes_of_training(arguments):
    reference = filled(SPNet((1, 1, 2, 2), **arguments)).float()
    state = {f"module.{key}": value for key, value in reference.state_dict().items()}
    network = official.load_official({"epoch": 3, "state_dict": state, "optimizer": {"state": {}}})
    assert not network.training
    x = picture(2, arguments.get("in_chans", 3), 33, 41)
    with torch.no_grad():  # batches of few values: in training the reference's own rounding grows
        assert_same(network, reference.double(), x, training=1e-6)
    assert network.num_classes == arguments.get("classes", 4)


@pytest.mark.parametrize(("depth", "name"), [(6, "resnet50s"), (23, "resnet101s")])
def test_keys_and_shapes_are_the_official_ones(depth, name):
    shapes = json.loads(KEYS.read_text())
    if depth == 23:
        block = {k: v for k, v in shapes.items() if k.startswith("pretrained.layer3.4.")}
        last = {k: v for k, v in shapes.items() if k.startswith("pretrained.layer3.5.")}
        for i in range(5, 22):
            shapes = {
                k: v for k, v in shapes.items() if not k.startswith(f"pretrained.layer3.{i}.")
            }
            shapes |= {k.replace("layer3.4.", f"layer3.{i}."): v for k, v in block.items()}
        shapes |= {k.replace("layer3.5.", "layer3.22."): v for k, v in last.items()}
    with torch.device("meta"):
        network = create_model("spnet", backbone=name)
    back = {ours: theirs for theirs, ours in spnet.modules(network).items()}
    own = {}
    for key, value in network.state_dict().items():
        module, _, leaf = key.rpartition(".")
        own[f"{back[module]}.{leaf}"] = list(value.shape)
    assert own == shapes


@pytest.mark.parametrize("old", [False, True])
def test_deep_stem_weights_of_imagenet_are_a_classifier_and_a_backbone(tmp_path, old):
    reference = filled(ResNet((1, 1, 1, 1), spm=False, classes=7)).float()
    state = {
        key: value
        for key, value in reference.state_dict().items()
        if not (old and key.endswith("num_batches_tracked"))
    }
    network = official.load_official(state)
    assert type(network) is timm.models.ResNet
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 7)

    path = tmp_path / "resnet.pth"
    torch.save(state, path)
    arguments = {"backbone_args": {"layers": (1, 1, 1, 1)}, "gate": None, "num_classes": 2}
    network = create_model("spnet", backbone_checkpoint=path, **arguments).double().eval()
    x = picture(1, 3, 33, 41)
    maps = network.backbone(x)
    for ours, theirs in zip(maps, reference.double().levels(x), strict=True):
        torch.testing.assert_close(ours, theirs)

    del state["layer2.0.bn2.bias"]
    state["layer9.weight"] = torch.zeros(1)
    torch.save(state, path)
    with pytest.raises(
        ValueError, match=r"does not fit ResNet: missing: layer2\.0\.bn2\.bias; unexp"
    ):
        create_model("spnet", backbone_checkpoint=path, **arguments)


def test_missing_unexpected_and_misshapen_tensors_are_named():
    with torch.device("meta"):
        state = SPNet((1, 1, 1, 1)).state_dict()
    broken = {k: v for k, v in state.items() if not k.startswith("pretrained.layer4.0.spm.bn1.")}
    with pytest.raises(ValueError, match=r"fit SPNet: missing: pretrained\.layer4\.0\.spm\.bn1\.w"):
        official.load_official(broken)
    with pytest.raises(ValueError, match=r"fit SPNet: unexpected: head\.strip_pool3\.bias"):
        official.load_official({**state, "head.strip_pool3.bias": torch.zeros(2)})
    part = SPHead(16, 3).state_dict()
    with pytest.raises(ValueError, match=r"shapes: score_layer.1.bias \[5\] where .* has \[4\]"):
        official.load_official({**part, "score_layer.1.bias": torch.zeros(5)})
    with pytest.raises(ValueError, match=r"fit strip pooling alone: missing: conv3.bias"):
        official.load_official(
            {k: v for k, v in SPBlock(4, 4).state_dict().items() if k != "conv3.bias"}
        )
    with pytest.raises(ValueError, match=r"conv1_2.0.weight \[3\] where the network has 4 dimens"):
        official.load_official({**StripPool(8).state_dict(), "conv1_2.0.weight": torch.zeros(3)})


def test_hints_are_for_what_no_weight_tells():
    block = Bottleneck(32, 8, spm=True).state_dict()
    mixed = StripPool(8).state_dict()
    for state, hints, message in [
        (block, {"stride": 2}, "the hint stride must be 1 for a block without projection"),
        (block, {"stride": 3}, "the hint stride must be 1 or 2"),
        (block, {"dilation": 0}, "the hint dilation must be at least 1, not 0"),
        (mixed, {"stride": 1}, "the hint stride is only for a bottleneck alone"),
        (block, {"pool_sizes": (2, 2)}, "pool_sizes is only for mixed pooling alone or SPNet's he"),
        (mixed, {"pool_sizes": (2,)}, "pool_sizes must be two sides"),
    ]:
        with pytest.raises(ValueError, match=message):
            official.load_official(state, **hints)


def test_sources_are_not_confused():
    with torch.device("meta"):
        theirs = [SPNet((1, 1, 1, 1)), ResNet((1, 1, 1, 1), spm=False, classes=3)]
        theirs += [SPBlock(4, 4), StripPool(8), SPHead(8, 3), FCNHead(8, 3)]
        theirs += [Bottleneck(32, 8, spm=True)]
        foreign = [create_model(name) for name in ("resnet18", "resnet50d", "resnet50_triplet")]
        foreign += [create_model("mobilenext_035"), create_model("spnet"), nn.Conv2d(3, 4, 3)]
        foreign += [create_model("deeplabv3", backbone="resnet50")]
    for module in theirs:
        assert spnet.recognise(module.state_dict())
        for other in (coordinate_attention, triplet_attention, mobilenext):
            assert not other.recognise(module.state_dict()), (type(module), other)
    for module in foreign:
        assert not spnet.recognise(module.state_dict()), type(module)
