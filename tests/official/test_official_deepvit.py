"""The authors' layout of any size, against a reference written from the specification.

The reference below has the authors' structure and key names in plain torch; that it agrees with the
authors' own numbers is seen by tests/test_replay_fixture.py, which compares foveal with them.
"""

import pytest
import torch
from comparison import assert_same, filled
from torch import nn

import foveal
from foveal.models import create_model
from foveal.official import deepvit as official_deepvit


class Attention(nn.Module):
    def __init__(self, c, heads, qkv_bias, mixes, transform_scale):
        super().__init__()
        self.heads, self.scale = heads, (c // heads) ** -0.5
        self.qkv = nn.Linear(c, 3 * c, bias=qkv_bias)
        self.last = self.scale if transform_scale else 1.0
        if mixes:
            self.reatten_matrix = nn.Conv2d(heads, heads, 1)
            self.var_norm = nn.BatchNorm2d(heads)
        self.proj = nn.Linear(c, c)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        maps = (self.scale * q @ k.mT).softmax(-1)
        if hasattr(self, "var_norm"):
            maps = self.last * self.var_norm(self.reatten_matrix(maps))
        return self.proj((maps @ v).transpose(1, 2).reshape(b, n, c))


class Mlp(nn.Module):
    def __init__(self, c, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c, hidden), nn.Linear(hidden, c)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, c, heads, ratio, qkv_bias, mixes, transform_scale, a):
        super().__init__()
        self.a = a
        self.norm1 = nn.LayerNorm(c, eps=1e-6)
        self.attn = Attention(c, heads, qkv_bias, mixes, transform_scale)
        self.norm2 = nn.LayerNorm(c, eps=1e-6)
        self.mlp = Mlp(c, int(c * ratio))

    def forward(self, x):
        x = x + self.attn(self.norm1(self.a * x)) / self.a
        return x + self.mlp(self.norm2(self.a * x)) / self.a


class Embedding(nn.Module):
    def __init__(self, c, patch, in_chans, cnn):
        super().__init__()
        self.cnn = cnn
        if cnn:
            self.conv1 = nn.Conv2d(in_chans, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.conv2 = nn.Conv2d(64, 64, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(64)
            patch, in_chans = patch // 2, 64
        self.proj = nn.Conv2d(in_chans, c, patch, patch)

    def forward(self, x):
        if self.cnn:
            x = self.bn1(self.conv1(x)).relu()
            x = self.bn2(self.conv2(x)).relu()
        return self.proj(x).flatten(2).mT


class Network(nn.Module):
    def __init__(
        self,
        mixes,
        c=24,
        heads=4,
        ratio=3,
        qkv_bias=True,
        cnn=True,
        patch=8,
        size=(32, 32),
        in_chans=3,
        classes=5,
        a=0.5,
        transform_scale=False,
    ):
        super().__init__()
        self.patch_embed = Embedding(c, patch, in_chans, cnn)
        tokens = 1 + (size[0] // patch) * (size[1] // patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, c))
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, c))
        self.blocks = nn.Sequential(
            *[Block(c, heads, ratio, qkv_bias, m, transform_scale, a) for m in mixes]
        )
        self.norm = nn.LayerNorm(c, eps=1e-6)
        self.head = nn.Linear(c, classes)

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


HINTS = {"adjustment": 0.5, "transform_scale": False}


@pytest.mark.parametrize(
    ("kw", "hints"),
    [
        ({"mixes": [False, True, True]}, {}),
        ({"mixes": [True, False, True], "transform_scale": True}, {"transform_scale": True}),
        ({"mixes": [True], "cnn": False, "a": 1.0}, {"adjustment": 1}),
        ({"mixes": [True, True], "qkv_bias": False, "patch": 4, "in_chans": 1}, {}),
        ({"mixes": [False], "heads": 6}, {"num_heads": 6, "transform_scale": None}),
        ({"mixes": [False, True], "c": 22, "heads": 2, "ratio": 2.6, "classes": 1}, {}),
        ({"mixes": [True], "size": (16, 32)}, {"img_size": (16, 32)}),
        ({"mixes": [False, True], "patch": 32, "size": (32, 32)}, {}),  # one patch
    ],
)
def test_a_network_of_any_size(kw, hints):
    reference = filled(Network(**kw))
    checkpoint = {"state_dict": {f"module.{k}": v for k, v in reference.state_dict().items()}}
    network = foveal.load_official(checkpoint, **HINTS | hints)
    assert not network.training
    x = torch.randn(3, kw.get("in_chans", 3), *kw.get("size", (32, 32))).double()
    assert_same(network, reference, x, training=1e-8)
    tokens = reference.pos_embed.shape[1]
    known = [block.attn.tokens.item() for block in network.blocks if hasattr(block.attn, "tokens")]
    assert known == [tokens] * sum(kw["mixes"])
    assert network.default_cfg["input_size"] == (x.shape[1], *x.shape[2:])


def test_layer_norms_eps_and_the_usual_factor_are_hints():
    reference = filled(Network([True, True]))
    for module in reference.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 0.1
        if isinstance(module, Attention):
            module.scale = 0.7
    network = foveal.load_official(reference.state_dict(), norm_eps=0.1, qk_scale=0.7, **HINTS)
    assert_same(network, reference, torch.randn(3, 3, 32, 32).double(), training=1e-8)


# The authors' networks: width, which blocks mix, stem; what their code sets beside the weights.
AUTHORS = {
    "deepvit_16_patch16_224": ({"c": 384, "mixes": [True] * 16, "cnn": False}, 1.0, False),
    "deepvit_24_patch16_224": ({"c": 384, "mixes": [True] * 24, "cnn": False}, 1.0, False),
    "deepvit_32_patch16_224": ({"c": 384, "mixes": [True] * 32, "cnn": False}, 1.0, False),
    "deepvit_small_patch16_224": (
        {"c": 396, "mixes": [False] * 11 + [True] * 5, "cnn": True},
        0.5,
        True,
    ),
    "deepvit_large_420_patch16_224": (
        {"c": 420, "mixes": [False] * 20 + [True] * 12, "cnn": True},
        0.5,
        False,
    ),
    "deepvit_large_420_patch16_384": (
        {"c": 420, "mixes": [False] * 20 + [True] * 12, "cnn": True, "size": (384, 384)},
        0.5,
        False,
    ),
}


def authors(name):
    kw = AUTHORS[name][0]
    with torch.device("meta"):
        return Network(**{"size": (224, 224), **kw}, heads=12, patch=16, classes=1000)


@pytest.mark.parametrize("name", AUTHORS)
def test_named_networks_have_the_authors_keys_and_settings(name):
    with torch.device("meta"):
        ours = create_model(name)
    shapes = {k: v.shape for k, v in ours.state_dict().items() if not k.endswith(".attn.tokens")}
    assert shapes == {k: v.shape for k, v in authors(name).state_dict().items()}
    _, adjustment, transform_scale = AUTHORS[name]
    assert all(block.adjustment == adjustment for block in ours.blocks)
    expected = ours.blocks[-1].attn.scale if transform_scale else 1
    assert ours.blocks[-1].attn.reatten_scale == expected


@pytest.mark.parametrize(
    "name",
    [
        "deepvit_16_patch16_224",
        "deepvit_small_patch16_224",
        pytest.param("deepvit_large_420_patch16_384", marks=pytest.mark.slow),
    ],
)
def test_settings_of_the_authors_networks_need_no_hints(name):
    state = {k: torch.zeros(()).expand(v.shape) for k, v in authors(name).state_dict().items()}
    network = foveal.load_official(state)
    _, adjustment, transform_scale = AUTHORS[name]
    assert {block.adjustment for block in network.blocks} == {adjustment}
    attn = network.blocks[-1].attn
    assert attn.reatten_scale == (attn.scale if transform_scale else 1)
    assert attn.tokens == state["pos_embed"].shape[1]


def state_of(**kw):
    return Network(**{"mixes": [False, True], **kw}).state_dict()


@pytest.mark.parametrize(
    ("kw", "hints", "message"),
    [
        ({}, {}, r"width 24 and 2 blocks, of which 1 re-attend, do not tell its adjustment"),
        ({}, {"adjustment": 0.5}, "do not tell its transform_scale: give it as a hint"),
        ({"c": 396, "heads": 12}, {}, "do not tell its adjustment"),  # DeepViT-S has 16 blocks
        ({}, {**HINTS, "num_heads": 6}, "num_heads=6 contradicts the weights, which have 4"),
        ({"size": (16, 32)}, HINTS, r"for 8 patches, which is no square: give the hint img_size"),
        ({"mixes": [False]}, HINTS, "do not tell its heads: give the hint num_heads"),
        ({"mixes": [False], "c": 26}, {**HINTS, "num_heads": 12}, "a multiple of num_heads=12"),
    ],
)
def test_what_the_weights_do_not_tell_must_be_given(kw, hints, message):
    with pytest.raises(ValueError, match=message):
        foveal.load_official(state_of(**kw), **hints)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.1.attn.var_norm.running_mean"), "missing: blocks.1.attn.var_norm"),
        (lambda s: s.pop("blocks.0.mlp.fc1.weight"), "missing: blocks.0.mlp.fc1.weight"),
        (lambda s: s.pop("cls_token"), "missing: cls_token"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected: extra"),
        (
            lambda s: s.update({"blocks.0.attn.reatten_matrix.bias": torch.zeros(4)}),
            "missing: blocks.0.attn.reatten_matrix.weight",
        ),
        (lambda s: s.update({"norm.bias": torch.zeros(23)}), r"norm.bias \[23\] where .* \[24\]"),
        (lambda s: s.update(pos_embed=torch.zeros(17, 24)), r"pos_embed \[17, 24\] where"),
    ],
)
def test_keys_and_shapes_that_do_not_fit_are_listed(change, message):
    state = state_of()
    change(state)
    with pytest.raises(ValueError, match=message):
        foveal.load_official(state, **HINTS)


def test_a_vision_transformer_like_any_other_is_not_taken_for_one():
    plain = state_of(mixes=[False, False], cnn=False)
    assert not official_deepvit.recognise(plain)
    with pytest.raises(ValueError, match="of no source known here"):
        foveal.load_official(plain)
    kw = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 4, "num_classes": 5}
    network = create_model("deepvit", img_size=32, re_attention=0, **kw)
    network.load_state_dict(plain)  # the keys are the same
