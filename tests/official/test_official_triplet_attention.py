"""Official layouts of any width, against a reference written from the specification.

The reference below has the authors' structure and key names in plain torch, with the feature map
rotated as they do; the library builds the same networks from timm's blocks. That both agree with
the authors' own numbers is checked by tests/test_replay_fixture.py.
"""

import pytest
import timm
import torch
from comparison import assert_same
from torch import nn

from foveal import official
from foveal.layers import TripletAttention
from foveal.models import create_model
from foveal.official import coordinate_attention, triplet_attention

A = ("cw", "hc", "hw", "conv")
B = ("ChannelGateH", "ChannelGateW", "SpatialGate", "spatial")


class Gate(nn.Module):
    def __init__(self, inner, k):
        super().__init__()
        self.inner = inner
        conv = nn.Module()
        conv.conv = nn.Conv2d(2, 1, k, padding=(k - 1) // 2, bias=False)
        conv.bn = nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)
        self.add_module(inner, conv)

    def forward(self, x):
        pooled = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], dim=1)
        part = getattr(self, self.inner)
        return x * part.bn(part.conv(pooled)).sigmoid()


class Attention(nn.Module):
    def __init__(self, names=B, k=7, spatial=True):
        super().__init__()
        self.names = names[:3] if spatial else names[:2]
        for name in self.names:
            self.add_module(name, Gate(names[3], k))

    def forward(self, x):
        turns = [(0, 2, 1, 3), (0, 3, 2, 1), (0, 1, 2, 3)]
        parts = [
            getattr(self, name)(x.permute(turn).contiguous()).permute(turn)
            for name, turn in zip(self.names, turns, strict=False)
        ]
        return sum(parts) / len(parts)


class ResNetBlock(nn.Module):
    """BasicBlock or Bottleneck; ``slot`` None is the plain one."""

    def __init__(
        self, inplanes, planes, stride=1, bottleneck=False, slot="triplet_attention", **layer
    ):
        super().__init__()
        out = planes * (4 if bottleneck else 1)
        if bottleneck:
            shapes = [(inplanes, planes, 1, 1), (planes, planes, 3, stride), (planes, out, 1, 1)]
        else:
            shapes = [(inplanes, planes, 3, stride), (planes, planes, 3, 1)]
        self.count, self.slot = len(shapes), slot
        for i, (a, b, k, s) in enumerate(shapes, 1):
            self.add_module(f"conv{i}", nn.Conv2d(a, b, k, s, k // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride != 1 or inplanes != out:
            conv = nn.Conv2d(inplanes, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out))
        if slot:
            self.add_module(slot, Attention(**layer))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y.relu() if i < self.count else y
        if self.slot:
            y = getattr(self, self.slot)(y)
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    def __init__(self, depths, planes, num_classes, cifar=False, stem=64, in_chans=3, **block):
        super().__init__()
        size = {"kernel_size": 3, "stride": 1, "padding": 1} if cifar else {}
        size = size or {"kernel_size": 7, "stride": 2, "padding": 3}
        self.conv1 = nn.Conv2d(in_chans, stem, bias=False, **size)
        self.bn1 = nn.BatchNorm2d(stem)
        self.cifar, width = cifar, stem
        for s, (depth, p) in enumerate(zip(depths, planes, strict=True), 1):
            blocks = []
            for b in range(depth):
                blocks.append(ResNetBlock(width, p, 2 if s > 1 and b == 0 else 1, **block))
                width = p * (4 if block.get("bottleneck") else 1)
            self.add_module(f"layer{s}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        if not self.cifar:
            x = nn.functional.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def conv_bn(a, b, k=3, stride=1, groups=1):
    conv = nn.Conv2d(a, b, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(b), nn.ReLU6())


class InvertedResidual(nn.Module):
    def __init__(self, inp, oup, stride, t, **layer):
        super().__init__()
        hidden = round(inp * t)
        parts = [conv_bn(inp, hidden, 1)] if t != 1 else []
        parts += [conv_bn(hidden, hidden, 3, stride, hidden)]
        parts += [nn.Conv2d(hidden, oup, 1, bias=False), nn.BatchNorm2d(oup), Attention(**layer)]
        self.conv, self.shortcut = nn.Sequential(*parts), stride == 1 and inp == oup

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    LAST = ((6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, num_classes, width=1.0, **layer):
        super().__init__()
        inp, head = int(32 * width), int(1280 * max(1.0, width))
        features = [conv_bn(3, inp, 3, 2)]
        for t, c, n, s in self.STAGES + self.LAST:
            for i in range(n):
                oup = int(c * width)
                features.append(InvertedResidual(inp, oup, s if i == 0 else 1, t, **layer))
                inp = oup
        self.features = nn.Sequential(*features, conv_bn(inp, head, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.25), nn.Linear(head, num_classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean(3).mean(2))


def filled(module, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if "running_var" in key or (tensor.ndim == 1 and key.endswith("weight")):
                tensor.uniform_(0.5, 1.5)
            elif "running_mean" in key or key.endswith("bias"):
                tensor.normal_(0, 0.1)
    return module.double().eval()


@pytest.mark.parametrize("names", [A, B])
@pytest.mark.parametrize("k", [3, 5, 7])
@pytest.mark.parametrize("spatial", [True, False])
def test_the_layer_in_both_sets_of_names(names, k, spatial):
    reference = filled(Attention(names, k, spatial))
    layer = official.load_official(reference.state_dict())
    assert isinstance(layer, TripletAttention)
    assert (layer.hw is not None) == spatial
    assert_same(layer, reference, torch.randn(2, 6, 5, 8).double())


@pytest.mark.parametrize("slot", ["triplet_attention", "triplet", "pcam"])
@pytest.mark.parametrize("names", [A, B])
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize(("inplanes", "planes", "stride"), [(16, 4, 1), (16, 16, 1), (6, 5, 2)])
def test_a_resnet_block_in_every_layout(slot, names, bottleneck, inplanes, planes, stride):
    reference = filled(
        ResNetBlock(inplanes, planes, stride, bottleneck, slot, names=names, k=3, spatial=False)
    )
    block = official.load_official(reference.state_dict(), stride=stride)
    assert_same(block, reference, torch.randn(2, inplanes, 9, 7).double())


@pytest.mark.parametrize(
    "kw",
    [
        {"depths": (1, 1, 1, 1), "planes": (8, 16, 24, 32)},
        {"depths": (2, 1, 3, 1), "planes": (4, 8, 8, 16), "bottleneck": True},
        {"depths": (1, 2, 1, 1), "planes": (16, 8, 8, 8), "bottleneck": True, "cifar": True},
        {"depths": (1, 1, 1, 2), "planes": (5, 6, 7, 9), "cifar": True, "stem": 5, "in_chans": 1},
        {"depths": (1, 1, 1, 1), "planes": (6, 6, 6, 6), "slot": "pcam", "k": 3, "stem": 17},
        {"depths": (1, 1, 1, 1), "planes": (6, 6, 6, 6), "slot": "triplet", "names": A},
        {"depths": (1, 1, 1, 1), "planes": (6, 6, 6, 6), "spatial": False, "k": 5},
    ],
)
def test_a_resnet_of_any_depth_and_width(kw):
    reference = filled(ResNet(num_classes=5, **kw))
    wrapped = {f"module.{key}": value for key, value in reference.state_dict().items()}
    network = official.load_official({"state_dict": wrapped, "epoch": 90, "arch": "resnet"})
    assert not network.training
    assert network.num_classes == network.default_cfg["num_classes"] == 5
    stem = kw.get("stem", 64)
    assert network.feature_info[0]["num_chs"] == stem
    reductions = [level["reduction"] for level in network.feature_info]
    assert reductions == ([1, 1, 2, 4, 8] if kw.get("cifar") else [2, 4, 8, 16, 32])
    assert_same(network, reference, torch.randn(2, kw.get("in_chans", 3), 65, 40).double())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("inp", "oup", "t"), [(8, 8, 6), (8, 16, 4), (12, 12, 3), (13, 9, 6), (5, 5, 2.5), (8, 8, 1)]
)
def test_an_inverted_residual_of_any_expansion(inp, oup, t, stride):
    for names, k, spatial in [(A, 3, True), (B, 7, False)]:
        reference = filled(InvertedResidual(inp, oup, stride, t, names=names, k=k, spatial=spatial))
        block = official.load_official(reference.state_dict(), stride=stride)
        assert_same(block, reference, torch.randn(2, inp, 9, 7).double())


@pytest.mark.parametrize(
    ("width", "num_classes", "kw"),
    [(0.125, 10, {}), (0.27, 5, {"k": 3}), (1.1, 2, {"spatial": False}), (0.2, 3, {"names": A})],
)
def test_mobilenetv2_of_any_width(width, num_classes, kw):
    reference = filled(MobileNetV2(num_classes, width, **kw))
    network = official.load_official(reference.state_dict())
    assert network.num_classes == num_classes
    assert network.drop_rate == 0.25
    assert_same(network, reference, torch.randn(2, 3, 65, 40).double())


@pytest.mark.parametrize(
    ("name", "depths", "planes", "bottleneck"),
    [
        ("resnet18_triplet", (2, 2, 2, 2), (64, 128, 256, 512), False),
        ("resnet50_triplet", (3, 4, 6, 3), (64, 128, 256, 512), True),
    ],
)
@pytest.mark.parametrize(("cifar", "size"), [(False, 64), (True, 32)])
def test_a_resnet_of_a_registered_size_is_the_registered_network(
    name, depths, planes, bottleneck, cifar, size
):
    torch.manual_seed(0)
    reference = ResNet(depths, planes, 7, cifar, bottleneck=bottleneck)
    network = official.load_official(reference.state_dict())
    named = create_model(name, num_classes=7, stem_stride=1 if cifar else 2)
    named.load_state_dict(network.state_dict(), strict=True)
    x = torch.randn(1, 3, size, size)
    torch.testing.assert_close(named.eval()(x), network(x))


def test_mobilenetv2_has_timms_trunk():
    with torch.device("meta"):
        reference, plain = MobileNetV2(1000), timm.create_model("mobilenetv2_100")
    state = {k: torch.zeros_like(v, device="cpu") for k, v in reference.state_dict().items()}
    network = official.load_official(state)
    ours = {k: v.shape for k, v in network.state_dict().items() if ".act." not in k}
    assert ours == {k: v.shape for k, v in plain.state_dict().items()}
    new = [k for k in network.state_dict() if ".act." in k]
    assert len(new) == 17 * 18
    assert "blocks.0.0.bn2.act.cw.conv.conv.weight" in new
    assert "blocks.6.0.bn3.act.hw.conv.bn.running_var" in new


@pytest.fixture(scope="module")
def states():
    return {
        "resnet": ResNet((1, 1, 1, 1), (8, 8, 8, 8), 4).state_dict(),
        "bottlenecks": ResNet((1, 1, 1, 1), (4, 4, 4, 4), 4, bottleneck=True).state_dict(),
        "mobilenetv2": MobileNetV2(4, 0.125).state_dict(),
        "layer": Attention().state_dict(),
        "basic block": ResNetBlock(8, 8, slot="pcam").state_dict(),
        "inverted residual": InvertedResidual(8, 8, 1, 6).state_dict(),
    }


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("resnet", "conv1.weight"),
        ("resnet", "layer3.0.conv2.weight"),
        ("resnet", "layer2.0.downsample.0.weight"),
        ("resnet", "layer1.0.triplet_attention.ChannelGateH.spatial.conv.weight"),
        ("resnet", "layer4.0.triplet_attention.SpatialGate.spatial.bn.running_var"),
        ("resnet", "fc.bias"),
        ("bottlenecks", "layer1.0.conv1.weight"),
        ("bottlenecks", "layer4.0.bn3.weight"),
        ("mobilenetv2", "features.0.0.weight"),
        ("mobilenetv2", "features.1.conv.3.ChannelGateW.spatial.bn.weight"),
        ("mobilenetv2", "features.5.conv.2.weight"),
        ("mobilenetv2", "features.18.1.running_mean"),
        ("mobilenetv2", "classifier.1.weight"),
        ("layer", "ChannelGateH.spatial.conv.weight"),
        ("layer", "SpatialGate.spatial.bn.bias"),
        ("basic block", "pcam.ChannelGateW.spatial.conv.weight"),
        ("basic block", "bn2.bias"),
        ("inverted residual", "conv.0.1.weight"),
        ("inverted residual", "conv.4.SpatialGate.spatial.conv.weight"),
    ],
)
def test_a_missing_key_is_named_in_the_authors_words(states, kind, key):
    broken = {k: v for k, v in states[kind].items() if k != key}
    assert len(broken) < len(states[kind])
    with pytest.raises(ValueError, match=f"missing: {key}$"):
        official.load_official(broken)


def test_unexpected_keys_and_shapes_are_named(states):
    state = states["resnet"]
    with pytest.raises(ValueError, match=r"unexpected: layer1.0.conv9.weight, other$"):
        official.load_official(
            {**state, "layer1.0.conv9.weight": torch.zeros(1), "other": torch.zeros(1)}
        )
    with pytest.raises(ValueError, match=r"shapes: layer2.0.bn1.bias \[5\] where .* has \[8\]"):
        official.load_official({**state, "layer2.0.bn1.bias": torch.zeros(5)})
    key = "layer2.0.triplet_attention.ChannelGateW.spatial.conv.weight"
    with pytest.raises(ValueError, match=rf"shapes: {key} \[1, 2, 3, 3\] where .* \[1, 2, 7, 7\]"):
        official.load_official({**state, key: torch.zeros(1, 2, 3, 3)})


@pytest.mark.parametrize("shape", [(5,), (0, 2, 7, 7), ()])
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("resnet", "layer1.0.triplet_attention.ChannelGateH.spatial.conv.weight"),
        ("resnet", "layer3.0.conv2.weight"),
        ("bottlenecks", "conv1.weight"),
        ("mobilenetv2", "features.5.conv.2.weight"),
        ("layer", "ChannelGateH.spatial.conv.weight"),
        ("basic block", "conv1.weight"),
        ("inverted residual", "conv.0.0.weight"),
    ],
)
def test_tensors_of_other_dimensions_are_named(states, kind, key, shape):
    with pytest.raises(ValueError, match=rf"shapes: {key} .* where the network has 4 dimensions"):
        official.load_official({**states[kind], key: torch.zeros(shape)})


def test_networks_are_called_by_their_names(states):
    for kind, name in [
        ("resnet", "ResNet with triplet attention"),
        ("mobilenetv2", "MobileNetV2 with triplet attention"),
        ("layer", "triplet attention"),
    ]:
        with pytest.raises(ValueError, match=f"do not fit {name}: unexpected: other$"):
            official.load_official({**states[kind], "other": torch.zeros(1)})


def test_weights_that_count_no_batches_load(states, caplog):
    for state in states.values():
        old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        caplog.clear()
        network = official.load_official(old)
        assert caplog.messages == [
            "the checkpoint counts no batches: all num_batches_tracked are 0"
        ]
        assert len(network.state_dict()) == len(state)


def test_a_whole_layer_that_is_missing_is_named(states):
    layer = "layer2.0.triplet_attention."
    broken = {k: v for k, v in states["resnet"].items() if not k.startswith(layer)}
    with pytest.raises(ValueError, match=f"missing: {layer}ChannelGateH.* and 6 more$"):
        official.load_official(broken)


def test_a_projection_that_the_widths_need_is_missed():
    state = ResNet((1, 1, 1, 1), (8, 8, 8, 8), 4).state_dict()  # from 64 to 8 channels in layer1
    broken = {k: v for k, v in state.items() if not k.startswith("layer1.0.downsample")}
    with pytest.raises(ValueError, match=r"missing: layer1\.0\.downsample\.0\.weight"):
        official.load_official(broken)


def test_each_source_knows_its_own(states):
    for state in states.values():
        assert triplet_attention.recognise(state)
        assert not coordinate_attention.recognise(state)
    for name in (
        "mobilenetv2_050_coordinate",
        "resnet18_coordinate",
        "resnet18",
        "mobilenetv2_050",
    ):
        with torch.device("meta"):
            assert not triplet_attention.recognise(create_model(name).state_dict())


def test_cbam_is_not_taken_for_it():
    keys = ("ChannelGate.mlp.1.weight", "SpatialGate.spatial.conv.weight")
    for prefix in ("", "layer1.0.cbam."):
        assert not triplet_attention.recognise({prefix + key: torch.zeros(1) for key in keys})


def test_hints_are_checked(states):
    with pytest.raises(TypeError, match="unknown hint 'strid': did you mean 'stride'"):
        official.load_official(states["resnet"], strid=2)
    for kind in ("resnet", "mobilenetv2", "layer"):
        with pytest.raises(ValueError, match="hint stride is only for a block alone"):
            official.load_official(states[kind], stride=1)
    for kind in ("basic block", "inverted residual"):
        with pytest.raises(ValueError, match="stride must be 1 or 2, not 3"):
            official.load_official(states[kind], stride=3)
    with pytest.raises(ValueError, match="must be 1 for a block without projection"):
        official.load_official(states["basic block"], stride=2)


@pytest.mark.parametrize("slot", [None, "triplet_attention"])
def test_the_authors_baseline_is_built_on_request_only(slot):
    reference = filled(ResNet((1, 1, 1, 1), (4, 4, 4, 4), 3, slot=slot))
    network = triplet_attention.resnet(reference.state_dict())
    assert_same(network, reference, torch.randn(2, 3, 48, 48).double())
    block = filled(ResNetBlock(4, 4, slot=slot))
    ours = triplet_attention.resnet_block(block.state_dict(), 1)
    assert_same(ours, block, torch.randn(2, 4, 9, 7).double())
    if slot is None:
        with pytest.raises(ValueError, match="of no source known here"):
            official.load_official(reference.state_dict())


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be odd and at least 1, not 4"):
        official.load_official(Attention(k=4).state_dict())
