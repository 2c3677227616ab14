"""Rules and patterns, on small networks whose structure is written here and on known networks."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from foveal.models import create_model, list_models
from foveal.surgery import find_places


class Residual(nn.Module):
    """An inverted residual with everything that a rule could stumble over."""

    def __init__(self, channels, wide, out=None):
        super().__init__()
        out = out or channels
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1), nn.BatchNorm2d(wide))
        self.act = nn.ReLU6(inplace=True)  # runs twice
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.norm = nn.BatchNorm2d(wide)
        self.clip = nn.ReLU6(inplace=True)  # changes its input in place
        self.idle = nn.Dropout(0.5)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 4 * wide, 1))
        self.project = nn.Conv2d(wide, out, 1)
        self.shortcut = nn.Identity() if out == channels else None

    def forward(self, x):
        y = self.act(self.act(self.expand(x)))
        y = self.idle(self.clip(self.norm(self.depthwise(y))))
        y = self.project(y * self.gate(y).mean(1, keepdim=True).sigmoid())
        return y if self.shortcut is None else y + self.shortcut(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Residual(8, 16), Residual(8, 24, out=12), Residual(12, 24))
        self.unused = nn.Conv2d(8, 8, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


SIZE = (3, 32, 48)


def names(model, where, size=SIZE):
    return [place.name for place in find_places(model, where, size)]


def test_places_have_channels_and_sizes_in_the_order_of_execution():
    places = find_places(Net(), lambda name, module: name in ("blocks.2", "stem"), SIZE)
    assert [(p.name, p.channels, p.size) for p in places] == [
        ("stem", 8, (16, 24)),
        ("blocks.2", 12, (16, 24)),
    ]


def test_blocks_are_what_adds_maps_and_all_others_of_its_class():
    assert names(Net(), "blocks") == ["blocks.0", "blocks.1", "blocks.2"]


def test_a_stage_ends_where_the_shape_changes():
    assert names(Net(), "stages") == ["blocks.0", "blocks.2"]


def test_expand_is_the_norm_and_activation_after_the_widest_convolution():
    # Not the gate's convolution, which is wider, nor the dropout behind the activation.
    assert names(Net(), "expand") == ["blocks.0.clip", "blocks.1.clip", "blocks.2.clip"]


KNOWN = [
    # network, blocks, stages, end of the first block's widest convolution
    ("timm", "resnet18", 8, "layer1.1 layer2.1 layer3.1 layer4.1", "layer1.0.bn2"),
    ("tv", "resnet50", 16, "layer1.2 layer2.3 layer3.5 layer4.2", "layer1.0.bn3"),
    ("timm", "resnet50d", 16, "layer1.2 layer2.3 layer3.5 layer4.2", "layer1.0.bn3"),
    (
        "timm",
        "convnext_atto",
        12,
        "stages.0.blocks.1 stages.1.blocks.1 stages.2.blocks.5 stages.3.blocks.1",
        "stages.0.blocks.0.mlp.act",
    ),
    ("tv", "convnext_tiny", 18, "features.1.2 features.3.2 features.5.8 features.7.2", None),
    (
        "tv",
        "efficientnet_b0",
        16,
        "features.1.0 features.2.1 features.3.1 features.4.2 features.5.2 features.6.3 "
        "features.7.0",
        "features.1.0.block.0.2",
    ),
    (
        "timm",
        "mobilenetv2_100",
        16,  # its first block has no shortcut and is of a class of its own
        "blocks.1.1 blocks.2.2 blocks.3.3 blocks.4.2 blocks.5.2 blocks.6.0",
        "blocks.1.0.bn2",
    ),
    (
        "tv",
        "mobilenet_v2",
        17,
        "features.1 features.3 features.6 features.10 features.13 features.16 features.17",
        "features.1.conv.0.2",
    ),
    (
        "tv",
        "mobilenet_v3_large",
        15,
        "features.1 features.3 features.6 features.10 features.12 features.15",
        "features.1.block.0.2",
    ),
    ("timm", "regnety_002", 13, "s1.b1 s2.b1 s3.b4 s4.b7", "s1.b1.conv3.bn"),
    (
        "tv",
        "densenet121",
        58,
        "features.denseblock1 features.denseblock2 features.denseblock3 features.denseblock4",
        "features.denseblock1.denselayer1.relu2",
    ),
    (
        "timm",
        "convnextv2_atto",  # its normalisation adds maps, inside the block
        12,
        "stages.0.blocks.1 stages.1.blocks.1 stages.2.blocks.5 stages.3.blocks.1",
        "stages.0.blocks.0.mlp.grn",
    ),
    ("tv", "shufflenet_v2_x1_0", 16, "stage2.3 stage3.7 stage4.3", "stage2.0.branch2.4"),
]


@pytest.mark.parametrize(
    ("library", "name", "blocks", "stages", "expand"), KNOWN, ids=lambda value: str(value)[:20]
)
def test_rules_find_the_blocks_of_known_networks(library, name, blocks, stages, expand):
    build = timm.create_model if library == "timm" else torchvision.models.get_model
    with torch.device("meta"):
        model = build(name)
    size = (3, 224, 224)
    assert len(names(model, "blocks", size)) == blocks
    assert " ".join(names(model, "stages", size)) == stages
    if expand is not None:
        assert names(model, "expand", size)[0] == expand


@pytest.mark.parametrize("name", list_models(task="segment"))
def test_rules_look_at_the_backbone_of_a_network_that_has_one(name):
    """Mixed pooling in SPNet's head is residual, LR-ASPP's head adds logits to logits."""
    trunk = {"layers": (1, 1, 2, 2), "channels": (8, 8, 12, 16), "stem_width": 8}
    with torch.device("meta"):
        model = create_model(name, backbone="resnet50s", num_classes=3, backbone_args=trunk)
    blocks = [f"backbone.model.layer{at}" for at in ("1.0", "2.0", "3.0", "3.1", "4.0", "4.1")]
    stages = [block for block in blocks if block[-3:] not in ("3.0", "4.0")]
    assert names(model, "blocks", (3, 64, 64)) == blocks
    assert names(model, "stages", (3, 64, 64)) == stages
    assert names(model, "expand", (3, 64, 64)) == [f"{block}.bn3" for block in blocks]
    assert names(model, "head", (3, 64, 64)) == ["head"]


def test_a_backbone_without_blocks_is_not_made_up_for_by_its_head():
    """The pyramid in DeepLabV3's head concatenates."""
    with torch.device("meta"):
        model = create_model("deeplabv3", backbone="vgg11", output_stride=32)
    with pytest.raises(ValueError, match=r"has no blocks .*: name modules by .* are backbone\."):
        names(model, "blocks", (3, 64, 64))


def test_rules_do_not_depend_on_the_size_of_the_pictures():
    with torch.device("meta"):
        model = timm.create_model("efficientnet_b0")
    for rule in ("blocks", "stages", "expand"):
        assert names(model, rule, (3, 32, 32)) == names(model, rule, (3, 224, 224))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("blocks.*", ["blocks.0", "blocks.1", "blocks.2"]),
        ("blocks.[02]", ["blocks.0", "blocks.2"]),
        ("*.1.project", ["blocks.1.project"]),
        ("stem", ["stem"]),
        ("s*m", ["stem"]),
        ("block[s]", ["blocks"]),  # the bare word is the rule
        ("blocks.?.expand.1", ["blocks.0.expand.1", "blocks.1.expand.1", "blocks.2.expand.1"]),
    ],
)
def test_a_star_does_not_cross_a_dot(pattern, found):
    assert names(Net(), pattern) == found


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("block", "where='block' matches no module of Net: did you mean 'blocks'"),
        ("blocks.3", "matches no module of Net: did you mean 'blocks.2'"),
        ("blocks*clip", "matches no module of Net"),
        ("", "where='' matches no module of Net: it has stem, blocks, unused, head"),
        ("head", r"'head' \(Sequential\) returns \[1, 4\], not one map"),
        ("unused", r"'unused' \(Conv2d\) is not run by the network in evaluation"),
        ("*.0.act", r"'blocks.0.act' \(ReLU6\) is run 2 times in one pass"),
        (lambda name, module: False, "the function where chose no module of Net"),
        (
            lambda name, module: name in ("blocks", "blocks.1"),
            "where matches 'blocks' and, inside it, 'blocks.1'",
        ),
    ],
)
def test_what_cannot_be_a_place_is_named(where, message):
    with pytest.raises(ValueError, match=message) as error:
        names(Net(), where)
    assert "\n" not in str(error.value)


def test_where_is_text_or_a_function():
    with pytest.raises(TypeError, match="where must be a rule, a pattern or a function, not int"):
        names(Net(), 3)


@pytest.mark.parametrize("rule", ["blocks", "stages", "expand"])
def test_networks_without_blocks_of_maps_say_so(rule):
    with torch.device("meta"):
        vgg = torchvision.models.vgg11()
        vit = timm.create_model("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=f"where='{rule}': VGG has no blocks that add or concat"):
        names(vgg, rule, (3, 224, 224))
    with pytest.raises(ValueError, match=r"VisionTransformer pass streams of tokens \[B, N, C\]"):
        names(vit, rule, (3, 224, 224))


def test_streams_of_tokens_and_channels_last_maps_are_refused_with_the_reason():
    with torch.device("meta"):
        vit = timm.create_model("vit_tiny_patch16_224")
        fixed = timm.create_model("swin_tiny_patch4_window7_224")
        free = torchvision.models.swin_t()
        normed = timm.create_model("vit_tiny_patch16_224", qk_norm=True)
    with pytest.raises(ValueError, match=r"a stream of tokens \[1, 197, 192\].*no rows and col"):
        names(vit, "blocks.3", (3, 224, 224))
    # Four axes, [B, heads, N, dim], and no map.
    with pytest.raises(ValueError, match=r"is in 'blocks.3.attn', which works on a stream of tok"):
        names(normed, "blocks.3.attn.q_norm", (3, 224, 224))
    assert names(vit, "patch_embed.proj", (3, 224, 224)) == ["patch_embed.proj"]
    for swin, where in [(fixed, "layers.0.blocks.*"), (free, "features.1.*")]:
        with pytest.raises(ValueError, match=r"returns \[B, H, W, C\], channels last"):
            names(swin, where, (3, 224, 224))


def test_channels_last_is_known_where_the_network_takes_one_size_only():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 2, stride=2)
            self.norm = nn.LayerNorm(8)
            self.register_buffer("position", torch.zeros(16, 16, 8))

        def forward(self, x):
            return self.norm(self.conv(x).permute(0, 2, 3, 1) + self.position)

    assert names(Net(), "conv", (3, 32, 32)) == ["conv"]
    with pytest.raises(ValueError, match=r"'norm' \(LayerNorm\) returns \[B, H, W, C\]"):
        names(Net(), "norm", (3, 32, 32))


def test_a_module_with_two_names_is_found_by_both():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3)
            self.second = self.first

        def forward(self, x):
            return self.second(x)

    assert names(Net(), "second") == names(Net(), "first") == ["first"]


def test_outputs_that_are_no_tensor_are_named():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.two = Two()

        def forward(self, x):
            return self.two(x)[0]

    with pytest.raises(ValueError, match=r"'two' \(Two\) returns a tuple, not one map"):
        names(Outer(), "two")


def test_a_network_that_does_not_run_says_why():
    with pytest.raises(
        ValueError, match=r"Net does not run on shapes of an input \[5, 32, 32\] \(give"
    ):
        names(Net(), "blocks", (5, 32, 32))


def test_looking_leaves_no_trace():
    model = Net().train()
    names(model, "expand")
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
