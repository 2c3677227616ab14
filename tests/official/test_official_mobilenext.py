"""The authors' layouts of any width, against a reference written from the specification.

The reference below has the authors' structure, key names and defects in plain torch; that it agrees
with the authors' own numbers is seen by tests/test_replay_fixture.py, which compares foveal with
them.
"""

import logging
import math
import re
from functools import partial

import comparison
import pytest
import torch
import torchvision
from comparison import filled
from torch import nn

from foveal import official
from foveal.models import create_model, list_models
from foveal.official import coordinate_attention, mobilenext

# The network is deep, and rounding grows in training.
assert_same = partial(comparison.assert_same, training=1e-8)


def rounded(value, divisor):
    n = max(divisor, math.floor((value + divisor / 2) / divisor) * divisor)
    return n + divisor if n < 0.9 * value else n


class Block(nn.Module):
    def __init__(self, inp, oup, stride, t, keep_3x3=False, identity_div=1):
        super().__init__()
        h = inp // t
        if h < oup / 6:
            h = rounded(math.ceil(oup / 6), 16)
        self.channels = 0

        def depthwise(c, s):
            return [nn.Conv2d(c, c, 3, s, 1, groups=c, bias=False), nn.BatchNorm2d(c)]

        def pointwise(a, b):
            return [nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b)]

        middle = [*pointwise(inp, h), *pointwise(h, oup), nn.ReLU6()]
        before = [*depthwise(inp, 1), nn.ReLU6()]
        if t == 2:
            parts = [*before, *middle, *depthwise(oup, stride)]
        elif inp != oup and stride == 1 and not keep_3x3:
            parts = middle
        elif inp != oup and stride == 2 and not keep_3x3:
            parts = [*middle, *depthwise(oup, 2)]
        else:
            parts = [*before, *middle, *depthwise(oup, 1)]  # whatever the stride
            self.channels = 0 if keep_3x3 else inp // identity_div
        self.conv = nn.Sequential(*parts)

    def forward(self, x):
        y = self.conv(x)
        if self.channels == 0:
            return y
        added = y[:, : self.channels] + x[:, : self.channels]
        return torch.cat([added, y[:, self.channels :]], dim=1)


class Network(nn.Module):
    ROWS = ((2, 96, 1, 2), (6, 144, 1, 1), (6, 192, 3, 2), (6, 288, 3, 2))
    ROWS += ((6, 384, 4, 1), (6, 576, 4, 2), (6, 960, 3, 1), (6, 1280, 1, 1))

    def __init__(self, width, num_classes=3, in_chans=3, identity_div=1, make_divisible=rounded):
        super().__init__()
        divisor = 4 if width == 0.1 else 8
        inp = make_divisible(32 * width, divisor)
        stem = nn.Conv2d(in_chans, inp, 3, 2, 1, bias=False)
        features = [nn.Sequential(stem, nn.BatchNorm2d(inp), nn.ReLU6())]
        for t, c, n, s in self.ROWS:
            oup = make_divisible(c * width, divisor)
            if c == 1280 and width < 1:
                oup = 1280
            for i in range(n):
                stride, keep = (s if i == 0 else 1), n == 1 and s == 1
                features.append(Block(inp, oup, stride, t, keep, identity_div))
                inp = oup
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(inp, num_classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("args", "hints"),
    [
        ((12, 12, 1, 6), {}),  # D
        ((12, 12, 1, 6, False, 3), {"identity_div": 3}),
        ((7, 7, 1, 6, False, 9), {"identity_div": 9}),  # no channel is left
        ((12, 12, 1, 6, True), {"shortcut": False}),
        ((12, 20, 1, 6, True), {}),
        ((12, 12, 2, 6), {}),  # runs at stride 1, with a shortcut
        ((12, 20, 2, 6, True), {"stride": 1}),  # runs at stride 1
        ((12, 20, 2, 2), {"stride": 2}),  # A
        ((12, 12, 2, 2), {"stride": 2}),
        ((12, 12, 1, 2), {"shortcut": False}),  # no shortcut though shapes allow it
        ((12, 20, 1, 6), {}),  # B
        ((20, 12, 1, 3), {"stride": 1}),
        ((12, 20, 2, 6), {}),  # C
        ((40, 13, 2, 4), {"stride": 2}),
    ],
)
def test_a_block_of_every_layout(args, hints):
    reference = filled(Block(*args))
    block = official.load_official(reference.state_dict(), **hints)
    assert_same(block, reference, torch.randn(2, args[0], 9, 7).double())


@pytest.mark.parametrize(
    ("width", "kw"),
    [
        (0.02, {}),  # three rows lose their strides
        (0.03, {}),
        (0.05, {}),
        (0.1, {"num_classes": 7}),
        (0.25, {"identity_div": 2}),
        (0.35, {"in_chans": 1}),
        (1.1, {"num_classes": 1}),
        (0.27, {"make_divisible": lambda value, divisor: round(value)}),
    ],
)
def test_the_network_of_any_width(width, kw):
    reference = filled(Network(width, **kw))
    hints = {"identity_div": kw["identity_div"]} if "identity_div" in kw else {}
    network = official.load_official({"state_dict": reference.state_dict()}, **hints)
    assert not network.training
    assert network.drop_rate == 0.2
    assert network.num_classes == network.default_cfg["num_classes"] == kw.get("num_classes", 3)
    x = torch.randn(2, kw.get("in_chans", 3), 65, 40).double()
    assert_same(network, reference, x)
    assert [m.shape[1] for m in network.forward_intermediates(x, intermediates_only=True)] == [
        level["num_chs"] for level in network.feature_info
    ]


@pytest.mark.parametrize(
    ("width", "side"),
    # As measured on the authors' code; 7 where no stride is lost.
    [(0.02, 28), (0.03, 56), (0.04, 14), (0.05, 14), (0.1, 7)],
)
def test_lost_strides_are_reproduced_and_logged(width, side, caplog):
    with caplog.at_level(logging.WARNING, "foveal"):
        network = official.load_official(Network(width).state_dict())
    with torch.no_grad():
        features = network.forward_features(torch.zeros(1, 3, 224, 224))
    assert features.shape == (1, 1280, side, side)
    logged = re.findall(r"features\.\d+ runs at stride 1", caplog.text)
    assert side == 7 * 2 ** len(logged)


def test_the_network_of_a_registered_width_is_the_registered_network():
    reference = filled(Network(0.5, 7)).float()
    network = official.load_official(reference.state_dict())
    named = create_model("mobilenext_050", num_classes=7)
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
        "features.1.conv.8.weight",
        "features.3.conv.2.weight",
        "features.9.conv.1.running_var",
        "features.20.conv.9.bias",
        "classifier.1.bias",
    ],
)
def test_a_missing_key_is_named_in_the_authors_words(state, key):
    broken = {k: v for k, v in state.items() if k != key}
    with pytest.raises(ValueError, match=f"missing: .*{re.escape(key)}"):
        official.load_official(broken)


def test_a_missing_block_is_named_in_the_authors_words(state):
    broken = {k: v for k, v in state.items() if not k.startswith("features.9.")}
    with pytest.raises(ValueError, match=r"missing: features.9.conv.0.weight, features.9.conv.1.w"):
        official.load_official(broken)


def test_unexpected_keys_shapes_and_layouts_are_named(state):
    with pytest.raises(ValueError, match=r"unexpected: features.2.conv.11.weight, features.21.c"):
        official.load_official(
            {
                **state,
                "features.2.conv.11.weight": torch.zeros(1),
                "features.21.conv.0.weight": torch.zeros(1),
            }
        )
    with pytest.raises(ValueError, match=r"shapes: features.4.conv.4.bias \[5\] where .* has \[16"):
        official.load_official({**state, "features.4.conv.4.bias": torch.zeros(5)})
    # A block with one depthwise convolution where the network has one with none.
    extra = {f"features.9.conv.{k}": v for k, v in Block(28, 40, 2, 6).conv.state_dict().items()}
    with pytest.raises(ValueError, match=r"features.9 has the layout of a block with stride 2, wh"):
        official.load_official({**state, **extra})


def test_keys_too_many_do_not_hide_the_source(state):
    for key in ("other.weight", "stray", "features.3.conv.7.weight", "features.4.conv.2.0.bias"):
        with pytest.raises(ValueError, match=f"fit MobileNeXt: unexpected: {re.escape(key)}$"):
            official.load_official({**state, key: torch.zeros(1)})


@pytest.mark.parametrize("shape", [(5,), (0, 16, 1, 1), (2, 3, 4, 5, 6)])
def test_tensors_of_other_dimensions_are_named(state, shape):
    for given in (state, Block(12, 12, 1, 6).state_dict()):
        key = next(k for k in given if k.endswith("conv.3.weight"))
        with pytest.raises(
            ValueError,
            match=rf"shapes: {key} {re.escape(str(list(shape)))} where the network has 4 dim",
        ):
            official.load_official({**given, key: torch.zeros(shape)})


def test_weights_that_count_no_batches_load(state, caplog):
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    network = official.load_official(old)
    assert network.bn1.num_batches_tracked == 0
    assert caplog.messages == ["the checkpoint counts no batches: all num_batches_tracked are 0"]
    one_less = {k: v for k, v in state.items() if k != "features.0.1.num_batches_tracked"}
    with pytest.raises(ValueError, match=r"missing: features\.0\.1\.num_batches_tracked$"):
        official.load_official(one_less)


def test_hints_are_checked(state):
    full, downsample = Block(12, 12, 1, 6).state_dict(), Block(12, 20, 2, 6).state_dict()
    transition = Block(12, 20, 1, 6).state_dict()
    for given, hints, message in [
        (full, {"stride": 3}, "with two depthwise convolutions must be 1 or 2, not 3"),
        (downsample, {"stride": 1}, "with one depthwise convolution must be 2, not 1"),
        (transition, {"stride": 2}, "with no depthwise convolutions must be 1, not 2"),
        (full, {"stride": 2, "shortcut": True}, "shortcut needs two depthwise convolutions, str"),
        (downsample, {"shortcut": True}, "the hint shortcut needs"),
        (full, {"identity_div": 0}, "the hint identity_div must be at least 1, not 0"),
        (downsample, {"identity_div": 2}, "identity_div is for a shortcut, which this block does"),
        (full, {"identity_div": 2, "shortcut": False}, "identity_div is for a shortcut"),
        (state, {"stride": 2}, "the hint stride is only for a block alone"),
        (state, {"shortcut": False}, "the hint shortcut is only for a block alone"),
    ]:
        with pytest.raises(ValueError, match=message):
            official.load_official(given, **hints)
    for given in (2.0, True, "2", None):
        with pytest.raises(TypeError, match=f"identity_div must be a whole number, not {given!r}"):
            official.load_official(full, identity_div=given)
    with pytest.raises(TypeError, match="unknown hint 'identity': did you mean 'identity_div'"):
        official.load_official(state, identity=2)


def test_files_with_averaged_weights_load(tmp_path, state):
    """Older names of the network change nothing: the keys are the same."""
    averaged = {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
    path = tmp_path / "i2rnetv3_model_best.pth.tar"
    torch.save(
        {
            "arch": "i2rnetv3",
            "epoch": 209,
            "state_dict": {f"module.{k}": v for k, v in state.items()},
            "state_dict_ema": averaged,
            "optimizer": {"state": {}},
            "metric": 74.022,
        },
        path,
    )
    bias = state["classifier.1.bias"]
    assert torch.equal(official.load_official(path).classifier.bias, bias + 1)  # as timm
    assert torch.equal(official.load_official(path, ema=True).classifier.bias, bias + 1)
    assert torch.equal(official.load_official(path, ema=False).classifier.bias, bias)


def test_sources_are_not_confused():
    ours = [Block(12, 12, 1, 6), Block(12, 20, 1, 6), Block(12, 20, 2, 6), Block(12, 8, 2, 2)]
    ours += [Network(0.1), Network(0.02)]
    for module in ours:
        assert mobilenext.recognise(module.state_dict())
        assert not coordinate_attention.recognise(module.state_dict())
    whole = {f"{k}.weight": torch.zeros(1) for k in coordinate_attention.network_modules()}
    blocks = [
        {f"{name}.weight": torch.zeros(1) for name in coordinate_attention.block_modules(expanded)}
        for expanded in (False, True)
    ]
    for keys in (whole, *blocks):
        assert coordinate_attention.recognise(keys)
        assert not mobilenext.recognise(keys)


def test_other_networks_are_no_official_ones():
    sequences = {  # positions in the `conv` of MobileNetV2 and V3 in other repositories
        "mobilenetv2": [0, 1, 3, 4, 6, 7],
        "mobilenetv3": [0, 1, 3, 4, 7, 8],
    }
    foreign = [
        {f"features.{i}.conv.{p}.weight": torch.zeros(1) for i in range(18) for p in positions}
        for positions in sequences.values()
    ]
    with torch.device("meta"):
        names = ["mobilenetv2_050", "mobilenext_035", "mobilenext_035_coordinate", "resnet18"]
        foreign += [create_model(name).state_dict() for name in names]
    assert set(names[1:3]) <= set(list_models())
    for other in foreign:
        assert not mobilenext.recognise(other)
        with pytest.raises(ValueError, match="of no source known here; known are"):
            official.load_official(other)


def test_mobilenets_of_nested_sequences_are_not_taken_for_it():
    """torchvision's, and the plain network and block of the authors of triplet attention."""
    with torch.device("meta"):
        theirs = torchvision.models.mobilenet_v2()
    block = {f"conv.{k}": v for k, v in theirs.features[2].conv.state_dict().items()}
    triplet = {f"features.{i}.conv.{p}.weight": torch.zeros(1) for i in range(1, 18) for p in "23"}
    triplet |= {
        f"features.{i}.conv.{p}.0.weight": torch.zeros(1) for i in range(1, 18) for p in "01"
    }
    for state in (theirs.state_dict(), block, triplet):
        assert not mobilenext.recognise(state)
