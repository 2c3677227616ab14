import logging
import math
from itertools import pairwise

import pytest
import timm
import torch
from torch import nn

from foveal.layers import CoordinateAttention, SandglassBlock, SqueezeExcite, TripletAttention
from foveal.models import count, create_model, list_models
from foveal.models.mobilenext import block_table


def meta(name, **kw):
    with torch.device("meta"):
        return create_model(name, **kw)


def blocks_of(net):
    return [block for stage in net.blocks for block in stage]


def filled(net, seed=0):
    """Give statistics and affine parameters values of their own, in float64."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if "running_var" in key:
                tensor.uniform_(0.5, 1.5)
            elif "running_mean" in key or key.endswith("bias"):
                tensor.normal_(0, 0.1)
    return net.double().eval()


# Measured on the authors' code: parameters, millions of multiply-adds, the stem's channels, each
# row's channels, the width of the middle of all twenty blocks.
MEASURED = {
    "mobilenext_035": (
        1_913_976,
        75.1,
        16,
        "32 48 64 104 136 200 336 1280",
        "8 16 16 16 16 32 32 32 32 32 32 32 32 32 32 32 64 56 56 208",
    ),
    "mobilenext_050": (
        2_152_304,
        103.3,
        16,
        "48 72 96 144 192 288 480 1280",
        "8 16 16 16 16 32 24 24 32 32 32 32 48 48 48 48 80 80 80 208",
    ),
    "mobilenext_075": (
        2_766_168,
        207.9,
        24,
        "72 112 144 216 288 432 720 1280",
        "12 32 32 24 24 48 36 36 48 48 48 48 80 72 72 72 128 120 120 208",
    ),
    "mobilenext_100": (
        3_535_416,
        311.3,
        32,
        "96 144 192 288 384 576 960 1280",
        "16 32 32 32 32 48 48 48 64 64 64 64 96 96 96 96 160 160 160 208",
    ),
    "mobilenext_140": (
        6_126_168,
        588.3,
        48,
        "136 200 272 400 536 808 1344 1792",
        "24 32 48 48 48 64 64 64 96 96 96 96 128 128 128 128 224 224 224 304",
    ),
}


@pytest.mark.parametrize("name", MEASURED)
def test_size_arithmetic_and_widths_are_the_measured_ones(name):
    parameters, multiply_adds, stem, rows, hidden = MEASURED[name]
    net = meta(name)
    counts = count(net, (3, 224, 224))
    assert counts.parameters == parameters
    assert round(counts.multiply_adds / 1e6, 1) == multiply_adds
    assert net.conv_stem.out_channels == stem
    assert [stage[-1].out_channels for stage in net.blocks] == [int(n) for n in rows.split()]
    widths = [block.pw_reduce.conv.out_channels for block in blocks_of(net)]
    assert widths == [int(n) for n in hidden.split()]


@pytest.mark.parametrize(
    ("name", "kw", "parameters", "multiply_adds"),
    [
        # The official layer in the official network.
        ("mobilenext_100_coordinate", {}, 4.088, 318),
        ("mobilenext_100_coordinate", {"attention_position": "first"}, 3.972, 316),
        ("mobilenext_100_coordinate", {"attention_position": "first", "reduction": 24}, 4.108, 318),
    ],
)
def test_with_attention_it_has_the_measured_size(name, kw, parameters, multiply_adds):
    counts = count(meta(name, **kw), (3, 224, 224))
    assert round(counts.parameters / 1e6, 3) == parameters
    assert round(counts.multiply_adds / 1e6) == multiply_adds


def test_squeeze_and_excitation_is_where_its_size_is_nearest_the_published_3_89():
    def distance(**kw):
        return abs(sum(p.numel() for p in meta("mobilenext_100_se", **kw).parameters()) - 3.89e6)

    others = [("first", r) for r in (16, 24, 28, 32)] + [("last", r) for r in (16, 24, 28)]
    default = distance()
    assert default < 0.007e6
    for position, reduction in others:
        assert distance(attention_position=position, reduction=reduction) > default


def test_layouts_of_the_twenty_blocks():
    rows = ["A", "D", "C DD", "C DD", "B DDD", "C DDD", "B DD", "D"]
    layout = {
        (True, True): "AD",
        (False, False): "B",
        (False, True): "C",
    }
    for stage, row in zip(meta("mobilenext_100").blocks, rows, strict=True):
        for block, letter in zip(stage, row.replace(" ", ""), strict=True):
            has = tuple(isinstance(p, nn.Sequential) for p in (block.dw_before, block.dw_after))
            assert letter in layout[has]
    net = meta("mobilenext_100")
    strides = [block.stride for block in blocks_of(net)]
    assert strides == [2, 1, 2, 1, 1, 2, 1, 1, *[1] * 4, 2, *[1] * 7]
    covered = [block.identity_channels for block in blocks_of(net)]
    expected = [0, 0, 0, 192, 192, 0, 288, 288, 0, 384, 384, 384, 0, 576, 576, 576, 0, 960, 960, 0]
    assert covered == expected  # 12 shortcuts; none in the block of reduction 2 nor in the single


@pytest.mark.parametrize(
    ("width", "stem", "outputs"),
    [
        (0.1, 4, [12, 16, 20, 28, 40, 56, 96, 1280]),  # multiples of 4, at this width only
        (0.11, 8, [16, 16, 24, 32, 40, 64, 104, 1280]),
        (1.1, 32, [104, 160, 208, 320, 424, 632, 1056, 1408]),
        (2.0, 64, [192, 288, 384, 576, 768, 1152, 1920, 2560]),
    ],
)
def test_channels_are_rounded_to_multiples_of_8(width, stem, outputs):
    channels, table = block_table(width)
    assert channels == stem
    assert [stage[-1].out_channels for stage in table] == outputs
    flat = [block for stage in table for block in stage]
    assert all(b.in_channels == a.out_channels for a, b in pairwise(flat))


@pytest.mark.parametrize("width", [0.02, 0.03, 0.04, 0.05, 0.1])
def test_the_stride_is_honoured_where_rounding_makes_channels_equal(width):
    net = create_model("mobilenext", width=width, num_classes=2).eval()
    assert net.forward_features(torch.rand(1, 3, 64, 96)).shape == (1, 1280, 2, 3)


@pytest.mark.parametrize(
    ("fraction", "covered"),
    [
        (1.0, [192, 288, 384, 576, 960]),
        (0.5, [96, 144, 192, 288, 480]),
        (1 / 3, [64, 96, 128, 192, 320]),
        (1 / 6, [32, 48, 64, 96, 160]),
        (0, []),
    ],
)
def test_identity_fraction_covers_the_first_channels(fraction, covered):
    net = meta("mobilenext_100", identity_fraction=fraction)
    found = {b.in_channels: b.identity_channels for b in blocks_of(net) if b.identity_channels}
    assert list(found.values()) == covered
    counts = count(net, (3, 224, 224))
    assert (counts.parameters, round(counts.multiply_adds / 1e6, 1)) == (3_535_416, 311.3)


@pytest.mark.parametrize(
    ("position", "place", "layers"), [("first", "dw_before", 15), ("last", "dw_after", 18)]
)
@pytest.mark.parametrize("attention", ["coordinate", "se"])
def test_attention_is_in_every_block_that_has_the_place(attention, position, place, layers):
    net = meta(f"mobilenext_100_{attention}", attention_position=position)
    kind = {"coordinate": CoordinateAttention, "se": SqueezeExcite}[attention]
    found = [name for name, m in net.named_modules() if isinstance(m, kind)]
    assert len(found) == layers
    assert all(name.endswith(f"{place}.attn") for name in found)


def test_any_layer_can_be_the_attention():
    net = create_model("mobilenext", width=0.35, attention="cbam", reduction=8, stages=2)
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 1000)
    assert net.blocks[0][0].dw_after.attn.channel.fc1.out_channels == 4  # 32 / 8


def test_the_general_name_builds_the_named_networks():
    for name in ("mobilenext_050", "mobilenext_140_se", "mobilenext_075_coordinate"):
        _, number, *attention = name.split("_")
        kw = {"attention": attention[0]} if attention else {}
        general = meta("mobilenext", width=int(number) / 100, **kw)
        assert general.default_cfg["architecture"] == name
        shapes = {k: v.shape for k, v in meta(name).state_dict().items()}
        assert {k: v.shape for k, v in general.state_dict().items()} == shapes
    assert meta("mobilenext", width=0.6).default_cfg["architecture"] == "mobilenext"


def test_initial_weights_follow_the_authors_rule():
    torch.manual_seed(0)
    net = create_model("mobilenext_100_coordinate", num_classes=10)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 5000]
    assert any(conv.groups > 1 for conv in convs)
    for conv in convs:
        expected = math.sqrt(2 / (conv.kernel_size[0] ** 2 * conv.out_channels))
        assert abs(conv.weight.std().item() / expected - 1) < 0.1
        assert abs(conv.weight.mean().item()) < 0.1 * expected
    biases = [v for k, v in net.named_parameters() if k.endswith(".bias")]
    assert all(not v.any() for v in biases)
    assert all((m.weight == 1).all() for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    for _ in range(2):
        assert net.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
        net.reset_classifier(20)
    assert not net.classifier.bias.any()


@pytest.mark.parametrize("output_stride", [2, 4, 8, 16])
def test_dilation_computes_what_the_strides_leave_and_more(output_stride):
    strided = filled(create_model("mobilenext", width=0.35, features_only=True))
    dilated = create_model(
        "mobilenext", width=0.35, features_only=True, output_stride=output_stride
    )
    dilated.double().eval().load_state_dict(strided.state_dict())
    x = torch.rand(2, 3, 65, 48).double()
    for level, dense, sparse in zip(range(5), dilated(x), strided(x), strict=True):
        step = max(1, 2 ** (level + 1) // output_stride)
        torch.testing.assert_close(dense[:, :, ::step, ::step], sparse, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("stages", range(1, 9))
def test_fewer_stages_keep_the_feature_maps_that_they_declare(stages, stem_stride):
    kw = {"width": 0.1, "stages": stages, "stem_stride": stem_stride, "features_only": True}
    for wrapper in ({}, {"feature_cls": "getter"}, {"feature_cls": "list"}):
        network = create_model("mobilenext", **kw, **wrapper).eval()
        maps = network(torch.rand(1, 3, 64, 64))
        assert len(maps) == [2, 2, 3, 4, 4, 5, 5, 5][stages - 1]
        assert [64 // x.shape[3] for x in maps] == network.feature_info.reduction()
        assert [x.shape[1] for x in maps] == network.feature_info.channels()
    plain = create_model("mobilenext", width=0.1, stages=stages, num_classes=3).eval()
    assert plain(torch.rand(1, 3, 40, 40)).shape == (1, 3)


def test_levels_end_before_a_stride_with_the_channels_of_the_table():
    net = meta("mobilenext_100", features_only=True)
    assert net.feature_info.channels() == [32, 144, 192, 384, 1280]
    assert net.feature_info.module_name() == [
        "act1",
        "blocks.1",
        "blocks.2",
        "blocks.4",
        "blocks.7",
    ]


def test_a_backbone_keeps_no_layer_that_its_levels_do_not_need():
    for kind in ({}, {"feature_cls": "getter"}):
        net = create_model("mobilenext_035", features_only=True, out_indices=(1, 2), **kind)
        sum(m.sum() for m in net(torch.rand(1, 3, 32, 32))).backward()
        assert [k for k, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_backbone_scripts():
    net = create_model("mobilenext_035", features_only=True, out_indices=(0, 3)).eval()
    x = torch.rand(1, 3, 32, 40)
    for ours, theirs in zip(torch.jit.script(net)(x), net(x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_intermediates_stop_early_and_prune():
    net = create_model("mobilenext_035").eval()
    x = torch.rand(1, 3, 32, 32)
    last, maps = net.forward_intermediates(x, [0, 2])
    assert last.shape == (1, 1280, 1, 1)
    early, same = net.forward_intermediates(x, [0, 2], stop_early=True)
    assert torch.equal(early, maps[1])
    for a, b in zip(same, maps, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="output_fmt must be 'NCHW', not 'NHWC'"):
        net.forward_intermediates(x, output_fmt="NHWC")
    net.prune_intermediate_layers([0, 2])
    assert torch.equal(net(x), maps[1])  # neither pooling nor classifier is left


def test_gradient_checkpointing_computes_the_same():
    torch.manual_seed(0)
    net = create_model("mobilenext", width=0.1, num_classes=3, drop_rate=0.0)
    x = torch.rand(2, 3, 48, 48)
    gradients = []
    for enable in (False, True):
        net.set_grad_checkpointing(enable)
        net.zero_grad()
        net(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_is_the_authors_0_2_and_drop_path_grows_linearly():
    net = meta("mobilenext_100")
    assert net.drop_rate == 0.2
    assert meta("mobilenext_100", drop_rate=0.0).drop_rate == 0
    net = meta("mobilenext_100", drop_path_rate=0.4)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks_of(net)]
    assert rates == pytest.approx([0.4 * i / 20 for i in range(20)])


def test_norm_and_activation_are_arguments():
    net = create_model("mobilenext_035", norm_layer="groupnorm1", act_layer="silu", stages=2)
    kinds = {type(m).__name__ for m in net.modules()}
    assert {"GroupNorm1", "SiLU"} <= kinds
    assert kinds.isdisjoint({"BatchNorm2d", "ReLU6"})
    assert net(torch.rand(1, 3, 8, 8)).isfinite().all()


def test_timms_optimiser_groups_find_every_parameter():
    net = meta("mobilenext_035")
    groups = timm.models.group_parameters(net, net.group_matcher(), reverse=True)
    assert len(groups) == sum(1 for _ in net.parameters())
    assert len(set(groups.values())) == 22  # stem, twenty blocks, classifier


@pytest.mark.parametrize(
    ("name", "kw", "message"),
    [
        ("mobilenext", {"width": 0}, "width must be more than 0 and finite, not 0"),
        ("mobilenext", {"width": float("nan")}, "width must be more than 0 and finite, not nan"),
        ("mobilenext_100", {"stages": 9}, "stages must lie between 1 and 8, not 9"),
        ("mobilenext_100", {"stem_stride": 3}, "stem_stride must be 1 or 2, not 3"),
        ("mobilenext_100", {"output_stride": 12}, "output_stride must be 2, 4, 8, 16 or 32"),
        ("mobilenext_100", {"identity_fraction": 2}, r"must lie in \[0, 1\], not 2"),
        ("mobilenext", {"attention": "coordinat"}, "did you mean 'coordinate'"),
        (
            "mobilenext_100_se",
            {"attention_position": "middle"},
            "must be 'first' or 'last', not 'middle'",
        ),
        ("mobilenext_100", {"features_only": True, "out_indices": (0, 5)}, "out_indices must be"),
        ("mobilenext_100", {"pretrained": True}, "no published weights for 'mobilenext_100'"),
        ("mobilenext_100_se", {"pretrained": True}, "no published weights"),
        ("mobilenext", {"width": math.inf}, "width must be more than 0 and finite, not inf"),
        ("mobilenext", {"attention": "triplet", "kernel_size": 4}, "kernel_size must be odd"),
    ],
)
def test_impossible_values_are_refused(name, kw, message):
    with pytest.raises(ValueError, match=message):
        meta(name, **kw)


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"reduction": 8}, "reduction is for an attention layer, and none is given"),
        ({"spatial": False}, "spatial is for an attention layer, and none is given"),
        ({"width": 0.5}, "^width is fixed by the name 'mobilenext_100'$"),
        ({"tabl": 1}, "unknown mobilenext_100 argument 'tabl': it must be one of pretr"),
        ({"attention_position": "first"}, "attention_position is for an attention layer"),
        ({"identity": 0.5}, "unknown mobilenext_100 argument 'identity': did you mean 'identity_f"),
    ],
)
def test_arguments_without_meaning_are_refused(kw, message):
    with pytest.raises(TypeError, match=message):
        meta("mobilenext_100", **kw)


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(5)
    return create_model("mobilenext_035").state_dict()


@pytest.mark.parametrize("name", ["mobilenext_035", "mobilenext_035_coordinate"])
@pytest.mark.parametrize(
    "kw",
    [
        {},
        {"num_classes": 7},
        {"features_only": True},
        {"features_only": True, "out_indices": (0, 2)},
        {"features_only": True, "feature_cls": "getter", "out_indices": (0, 2)},
    ],
)
def test_weights_of_a_plain_network_fill_the_trunk(plain, caplog, name, kw):
    overlay = {"state_dict": dict(plain)}
    with caplog.at_level(logging.WARNING, "foveal"):
        net = create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **kw)
    loaded = 0
    for key, value in net.state_dict().items():
        key = key.removeprefix("model.")
        if ".attn." not in key and not key.startswith("classifier"):
            assert torch.equal(value, plain[key]), key
            loaded += 1
    assert loaded > 20
    assert ("attention layers are new" in caplog.text) == name.endswith("coordinate")


def test_triplet_attention_has_its_arguments():
    net = meta("mobilenext", width=0.35, attention="triplet", kernel_size=3, spatial=False)
    layers = [m for m in net.modules() if isinstance(m, TripletAttention)]
    assert len(layers) == 18
    assert all(sum(p.numel() for p in m.parameters()) == 2 * (2 * 9 + 2) for m in layers)


@pytest.mark.parametrize("width", ["1", True])
def test_a_width_that_is_no_number_is_refused(width):
    for name in ("mobilenext", "mobilenetv2"):
        with pytest.raises(TypeError, match=f"^width must be a number, not {width!r}$"):
            meta(name, width=width)


def test_weights_of_ones_own_network_of_fewer_stages_load():
    kw = {"stages": 5, "num_classes": 4}
    state = create_model("mobilenext_035", **kw).state_dict()
    overlay = {"state_dict": dict(state), "num_classes": 4}
    net = create_model("mobilenext_035_se", True, pretrained_cfg_overlay=overlay, **kw)
    ours = net.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in state.items())


def test_weights_that_do_not_fit_the_trunk_are_refused(plain):
    state = {k: v for k, v in plain.items() if k != "blocks.2.1.dw_after.bn.bias"}
    with pytest.raises(ValueError, match=r"missing: blocks.2.1.dw_after.bn.bias"):
        create_model(
            "mobilenext_035_se", pretrained=True, pretrained_cfg_overlay={"state_dict": state}
        )


def test_every_block_is_the_layer():
    assert len(list_models("mobilenext*")) == 16
    for name in list_models("mobilenext_*"):
        assert all(isinstance(block, SandglassBlock) for block in blocks_of(meta(name)))
