import json
import logging
import math
import re
from pathlib import Path

import pytest
import timm
import torch

from foveal.layers import SandglassBlock, TripletAttention
from foveal.models import count, create_model, list_models, mobilenetv2
from foveal.official.coordinate_attention import network_modules
from foveal.official.renaming import rename

FIXTURES = Path(__file__).parents[1] / "fixtures" / "coordinate_attention"


def meta(name, **kw):
    with torch.device("meta"):
        return create_model(name, **kw)


@pytest.mark.parametrize(
    ("name", "kw", "parameters", "multiply_adds"),
    [
        # The measured columns of the paper's table, in the digits that it has.
        ("mobilenetv2_100", {}, 3.505, 300.8),
        ("mobilenetv2_100_coordinate", {}, 3.951, 306.7),
        ("mobilenetv2_075_coordinate", {}, 2.892, 212.6),
        ("mobilenetv2_050_coordinate", {}, 2.096, 99.0),
        ("mobilenetv2_100_coordinate", {"reduction": 16}, 4.367, 311.8),
        ("mobilenetv2", {}, 3.505, 300.8),
        ("mobilenetv2", {"width": 0.5, "attention": "coordinate"}, 2.096, 99.0),
        ("mobilenetv2_100_triplet", {}, 3.510, 307.0),
    ],
)
def test_size_and_arithmetic_are_the_measured_ones(name, kw, parameters, multiply_adds):
    counts = count(meta(name, **kw), (3, 224, 224))
    assert round(counts.parameters / 1e6, 3) == parameters
    assert round(counts.multiply_adds / 1e6, 1) == multiply_adds


@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenetv2"])
def test_plain_multiply_adds_to_the_last_digit(name):
    assert count(meta(name), (3, 224, 224)).multiply_adds == 300_774_272


@pytest.mark.parametrize(
    ("kw", "parameters_of_a_layer"),
    [
        ({}, 3 * (2 * 49 + 2)),
        ({"kernel_size": 3}, 3 * (2 * 9 + 2)),
        ({"spatial": False}, 2 * (2 * 49 + 2)),
    ],
)
def test_triplet_attention_in_17_blocks_to_the_last_digit(kw, parameters_of_a_layer):
    counts = count(meta("mobilenetv2_100_triplet", **kw), (3, 224, 224))
    assert counts.parameters == 3_504_872 + 17 * parameters_of_a_layer
    if not kw:
        assert counts.parameters == 3_509_972


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mobilenetv2_100_se", 3.89),
        ("mobilenetv2_100_cbam", 3.89),
        ("mobilenetv2_075_se", 2.86),
        ("mobilenetv2_075_cbam", 2.86),
        ("mobilenetv2_050_se", 2.1),
        ("mobilenetv2_050_cbam", 2.1),
    ],
)
def test_baselines_have_the_published_sizes(name, published):
    parameters = sum(p.numel() for p in meta(name).parameters())
    digits = len(str(published).partition(".")[2])
    assert round(parameters / 1e6, digits) == published


def test_attention_has_445776_parameters_in_16_layers():
    layers = [m for k, m in meta("mobilenetv2_100_coordinate").named_modules() if k.endswith(".se")]
    attention = [layer for layer in layers if list(layer.parameters())]
    assert len(attention) == 16
    assert sum(p.numel() for layer in attention for p in layer.parameters()) == 445_776


def test_keys_and_shapes_are_the_official_ones():
    official = json.loads((FIXTURES / "official_keys.json").read_text())[
        "mbv2_ca.MBV2_CA(1000,1.0)"
    ]
    ours = meta("mobilenetv2_100_coordinate").state_dict()
    renamed = {rename(key, network_modules()): shape for key, shape in official.items()}
    assert renamed == {key: list(value.shape) for key, value in ours.items()}


@pytest.mark.parametrize("name", list_models("mobilenetv2_*_*"))
def test_the_trunk_has_timms_keys_and_shapes(name):
    plain = meta(name.rpartition("_")[0]).state_dict()
    ours = meta(name).state_dict()
    ours = {k: v for k, v in ours.items() if ".se." not in k and ".act." not in k}
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in plain.items()}


def test_attention_acts_between_depthwise_convolution_and_projection():
    net = create_model("mobilenetv2_050_coordinate").eval()
    seen = {}
    block = net.blocks[2][1]
    block.se.register_forward_hook(lambda m, args, out: seen.update(x=args[0], y=out))
    block.bn2.register_forward_hook(lambda m, args, out: seen.update(depthwise=out))
    block.conv_pwl.register_forward_hook(lambda m, args, out: seen.update(projected=args[0]))
    net(torch.randn(1, 3, 32, 32))
    assert torch.equal(seen["x"], seen["depthwise"])
    assert torch.equal(seen["y"], seen["projected"])


def test_triplet_attention_acts_between_projection_and_shortcut():
    torch.manual_seed(0)
    net = create_model("mobilenetv2_050_triplet").eval()
    layers = [module for module in net.modules() if isinstance(module, TripletAttention)]
    assert len(layers) == 17
    seen = []
    for layer in layers:
        layer.register_forward_hook(lambda m, args, out: seen.append((args[0].shape[1], out)))
    block = net.blocks[2][1]  # the fifth, with a shortcut
    ends = {}
    block.register_forward_hook(lambda m, args, out: ends.update(x=args[0], y=out))
    net(torch.randn(1, 3, 64, 64))
    narrow = [8, *[16] * 2, *[16] * 3, *[32] * 4, *[48] * 3, *[80] * 3, 160]
    assert [channels for channels, _ in seen] == narrow
    torch.testing.assert_close(ends["y"], ends["x"] + seen[4][1])


@pytest.mark.parametrize("name", ["mobilenetv2_100_coordinate", "mobilenetv2_100_triplet"])
def test_initial_weights_follow_the_authors_rule(name):
    torch.manual_seed(0)
    net = create_model(name)
    convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.weight.numel() > 5000]
    assert any(conv.groups > 1 for conv in convs)
    for conv in convs:
        expected = math.sqrt(2 / (conv.kernel_size[0] ** 2 * conv.out_channels))
        assert abs(conv.weight.std().item() / expected - 1) < 0.1
        assert abs(conv.weight.mean().item()) < 0.1 * expected
    biases = [v for k, v in net.named_parameters() if k.endswith(".bias") and "classifier" not in k]
    assert all(not v.any() for v in biases)
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all((m.weight == 1).all() for m in norms)


def test_norm_and_activation_are_arguments():
    net = create_model("mobilenetv2_050_se", norm_layer=torch.nn.BatchNorm2d, act_layer="silu")
    assert isinstance(net.bn1.act, torch.nn.SiLU)
    net = create_model("mobilenetv2_050_se", bn_eps=0.01, bn_momentum=0.3)
    assert (net.bn1.eps, net.bn1.momentum) == (0.01, 0.3)


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory):
    """Weights of timm's plain network, as published: a file with its state_dict."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "plain.pth"
    torch.save(timm.create_model("mobilenetv2_050").state_dict(), path)
    return path


@pytest.mark.parametrize(
    "kw",
    [
        {},
        {"num_classes": 7},
        {"features_only": True},
        {"features_only": True, "feature_cls": "getter"},
    ],
)
def test_pretrained_fills_the_trunk_and_says_what_is_new(plain_file, caplog, kw):
    overlay = {"file": str(plain_file)}
    with caplog.at_level(logging.WARNING, "foveal"):
        net = create_model(
            "mobilenetv2_050_coordinate", pretrained=True, pretrained_cfg_overlay=overlay, **kw
        )
    plain = torch.load(plain_file)
    for key, value in net.state_dict().items():
        key = key.removeprefix("model.")
        if ".se." not in key and not (key.startswith("classifier") and "num_classes" in kw):
            assert torch.equal(value, plain[key]), key
    message = " ".join(record.getMessage() for record in caplog.records)
    assert "176 tensors of 16 attention layers are new" in message  # 11 in each layer
    assert "blocks.1.0.se" in message


def test_pretrained_trunk_under_triplet_attention(plain_file, caplog):
    overlay = {"file": str(plain_file)}
    with caplog.at_level(logging.WARNING, "foveal"):
        net = create_model(
            "mobilenetv2_050_triplet", pretrained=True, pretrained_cfg_overlay=overlay
        )
    plain, ours = torch.load(plain_file), net.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in plain.items())
    message = " ".join(record.getMessage() for record in caplog.records)
    assert "306 tensors of 17 attention layers are new" in message  # 3 gates of 6 in each
    assert "blocks.0.0.bn2.act, blocks.1.0.bn3.act" in message


def test_pretrained_adapts_grey_pictures(plain_file):
    overlay = {"file": str(plain_file)}
    net = create_model(
        "mobilenetv2_050_se", pretrained=True, in_chans=1, pretrained_cfg_overlay=overlay
    )
    stem = torch.load(plain_file)["conv_stem.weight"]
    torch.testing.assert_close(net.conv_stem.weight, stem.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.2.1.conv_dw.weight"), "missing: blocks.2.1.conv_dw.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected: extra"),
        (lambda s: s.update({"bn1.weight": torch.zeros(3)}), r"bn1.weight \[3\] where .* \[16\]"),
        (
            lambda s: s.update({"conv_stem.weight": torch.zeros(16, 3, 5, 5)}),
            r"shapes: conv_stem.weight \[16, 3, 5, 5\] where .* \[16, 3, 3, 3\]$",
        ),
        (
            lambda s: s.update({"classifier.weight": torch.zeros(1000, 9)}),
            r"shapes: classifier.weight \[1000, 9\] where .* \[1000, 1280\]$",
        ),
        (
            lambda s: s.update({"blocks.1.0.se.fc1.bias": torch.zeros(4)}),
            r"(missing|unexpected): blocks\.1\.0\.se\.",
        ),
    ],
)
def test_pretrained_weights_that_do_not_fit_the_trunk_are_refused(plain_file, change, message):
    state = torch.load(plain_file)
    change(state)
    with pytest.raises(ValueError, match=message):
        create_model(
            "mobilenetv2_050_se", pretrained=True, pretrained_cfg_overlay={"state_dict": state}
        )


def test_an_attention_layer_is_given_whole_or_not_at_all():
    given = create_model("mobilenetv2_050_coordinate").state_dict()
    layer = "blocks.1.0.se."

    def load(state):
        overlay = {"state_dict": state}
        return create_model("mobilenetv2_050_coordinate", True, pretrained_cfg_overlay=overlay)

    without = {key: value for key, value in given.items() if not key.startswith(layer)}
    ours = load(dict(without)).state_dict()
    assert all(torch.equal(ours[key], value) for key, value in without.items())
    begun = {key: value for key, value in given.items() if key != f"{layer}conv_h.bias"}
    with pytest.raises(ValueError, match=r"missing: blocks\.1\.0\.se\.conv_h\.bias$"):
        load(begun)


def test_weights_of_ones_own_sandglass_network_load():
    kw = {"width": 0.25, "block": "sandglass", "num_classes": 4}
    state = create_model("mobilenetv2", **kw).state_dict()
    overlay = {"state_dict": dict(state), "num_classes": 4}
    net = create_model("mobilenetv2", True, attention="se", pretrained_cfg_overlay=overlay, **kw)
    ours = net.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in state.items())


def test_published_weights_are_timms_where_it_has_them():
    for name in list_models("mobilenetv2_*_*"):
        ours = timm.models.get_pretrained_cfg(name)
        plain = timm.models.get_pretrained_cfg(name.rpartition("_")[0])
        assert (ours.url, ours.hf_hub_id) == (plain.url, plain.hf_hub_id)
        assert (ours.mean, ours.std, ours.interpolation) == (
            plain.mean,
            plain.std,
            plain.interpolation,
        )


@pytest.mark.parametrize("out_indices", [(0, 5), -1, 6])
def test_levels_that_do_not_exist_are_refused(out_indices):
    with pytest.raises(ValueError, match="out_indices must be"):
        create_model("mobilenetv2_050_se", features_only=True, out_indices=out_indices)


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("stages", range(1, 8))
def test_fewer_stages_keep_the_feature_maps_that_they_declare(stages, stem_stride):
    kw = {"stages": stages, "stem_stride": stem_stride, "features_only": True}
    for wrapper in ({}, {"feature_cls": "getter"}):
        network = create_model("mobilenetv2_050_coordinate", **kw, **wrapper)
        maps = network(torch.rand(1, 3, 64, 64))
        assert [64 // x.shape[3] for x in maps] == network.feature_info.reduction()
        assert [x.shape[1] for x in maps] == network.feature_info.channels()


def test_stages_out_of_range_or_with_pretrained_weights_are_refused():
    with pytest.raises(ValueError, match="stages must lie between 1 and 7, not 8"):
        create_model("mobilenetv2_050_coordinate", stages=8)
    with pytest.raises(ValueError, match="weights are for all 7 stages, not 4"):
        create_model("mobilenetv2_050_coordinate", stages=4, pretrained=True)


def test_a_new_classifier_is_unsure_whatever_the_number_of_classes():
    torch.manual_seed(0)
    network = create_model("mobilenetv2_050_coordinate", num_classes=10, stages=4).eval()
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert network.classifier.bias.abs().max() == 0


def test_without_attention_it_is_timms_network(plain_file, caplog):
    overlay = {"file": str(plain_file)}
    with caplog.at_level(logging.WARNING, "foveal"):
        ours = mobilenetv2(True, width=0.5, pretrained_cfg_overlay=overlay).eval()
    assert caplog.records == []
    theirs = timm.create_model("mobilenetv2_050").eval()
    theirs.load_state_dict(torch.load(plain_file))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(2, 3, 64, 48)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", list_models("mobilenetv2_*_*"))
def test_a_name_is_a_setting_of_the_one_function(name):
    _, width, attention = name.split("_")
    with torch.device("meta"):
        net = mobilenetv2(width=int(width) / 100, attention=attention)
    assert net.pretrained_cfg["architecture"] == name
    assert {k: v.shape for k, v in net.state_dict().items()} == {
        k: v.shape for k, v in meta(name).state_dict().items()
    }


def test_weights_are_found_by_the_width():
    for width in (0.5, 1.0, 1.4):
        plain = timm.models.get_pretrained_cfg(f"mobilenetv2_{100 * width:03.0f}")
        with torch.device("meta"):
            net = mobilenetv2(width=width)
        assert net.pretrained_cfg["url"] == plain.url
    assert meta("mobilenetv2", width=0.6).pretrained_cfg["architecture"] == "mobilenetv2"


@pytest.mark.parametrize(
    ("kw", "error", "message"),
    [
        ({"block": "sandglas"}, ValueError, "unknown block 'sandglas': did you mean 'sandglass'?"),
        ({"attention": "tripplet"}, ValueError, "unknown layer 'tripplet': did you mean 'triplet'"),
        ({"width": 0}, ValueError, "width must be more than 0 and finite, not 0"),
        ({"width": math.inf}, ValueError, "width must be more than 0 and finite, not inf"),
        ({"reduction": 8}, TypeError, "reduction is for an attention layer, and none is given"),
        ({"widht": 1}, TypeError, "unknown mobilenetv2 argument 'widht': did you mean 'width'?"),
        (
            {"attention": "triplet", "reduction": 8},
            TypeError,
            "unknown triplet argument 'reduction': it must be one of kernel_size, spatial",
        ),
        (
            {"attention": "triplet", "kernel_size": 4},
            ValueError,
            "kernel_size must be odd and at least 1, not 4",
        ),
        (
            {"width": 0.6, "pretrained": True},
            ValueError,
            "no pretrained weights for a MobileNetV2 of this width and attention: leave pretrained",
        ),
        (
            {"width": 0.75, "pretrained": True},
            ValueError,
            "no pretrained weights for a MobileNetV2 of this width and attention: leave pretrained",
        ),
        (
            {"block": "sandglass", "pretrained": True},
            ValueError,
            "no pretrained weights for block='sandglass': leave pretrained out",
        ),
        (
            {"block": "sandglass", "stages": 1},
            ValueError,
            "stages must lie between 2 and 7, not 1",
        ),
        (
            {"block": "sandglass", "pad_type": "same"},
            ValueError,
            "pad_type is for timm's blocks, not for block='sandglass'",
        ),
    ],
)
def test_wrong_settings_get_one_sentence(kw, error, message):
    with pytest.raises(error, match=re.escape(message)) as caught:
        create_model("mobilenetv2", **kw)
    assert "\n" not in str(caught.value)


# Input, middle, output and stride of the 16 sandglass blocks at width 1: t * c and c of the table.
SANDGLASSES = [
    *[(16, 24, 144, 2), (144, 24, 144, 1)],
    *[(144, 32, 192, 2), (192, 32, 192, 1), (192, 32, 192, 1)],
    *[(192, 64, 384, 2), (384, 64, 384, 1), (384, 64, 384, 1), (384, 64, 384, 1)],
    *[(384, 96, 576, 1), (576, 96, 576, 1), (576, 96, 576, 1)],
    *[(576, 160, 960, 2), (960, 160, 960, 1), (960, 160, 960, 1)],
    (960, 320, 1280, 1),
]


def test_sandglasses_join_wide_maps_and_keep_the_stages():
    net = meta("mobilenetv2", block="sandglass")
    assert [len(stage) for stage in net.blocks] == [1, 2, 3, 4, 3, 3, 1]
    blocks = [block for stage in net.blocks for block in stage][1:]
    assert all(isinstance(block, SandglassBlock) for block in blocks)
    assert [
        (b.in_channels, b.pw_reduce.conv.out_channels, b.out_channels, b.stride) for b in blocks
    ] == SANDGLASSES
    shortcuts = [c if c == o and s == 1 else 0 for c, _, o, s in SANDGLASSES]
    assert [block.identity_channels for block in blocks] == shortcuts


def test_cost_of_the_sandglass_network_is_the_sum_over_its_layers():
    # (weights, rows of the map that they run on), BatchNorm's two numbers per channel apart
    layers = [(3 * 32 * 9, 112), (32 * 9, 112), (32 * 16, 112), (1280 * 1000, 1)]
    norms, rows = 32 + 32 + 16, 112
    for inside, middle, outside, stride in SANDGLASSES:
        after = rows // stride
        layers += [(9 * inside, rows), (inside * middle, rows), (middle * outside, rows)]
        layers += [(9 * outside, after)]
        norms += inside + middle + 2 * outside
        rows = after
    counts = count(meta("mobilenetv2", block="sandglass"), (3, 224, 224))
    assert counts.parameters == sum(weights for weights, _ in layers) + 2 * norms + 1000
    assert counts.multiply_adds == sum(weights * rows**2 for weights, rows in layers)


@pytest.mark.parametrize(
    ("width", "plain_width", "kw", "side"),
    [(0.82, 1.0, {}, 224), (0.4, 0.5, {"stem_stride": 1}, 32)],
)
def test_widths_at_which_sandglasses_cost_what_inverted_residuals_do(width, plain_width, kw, side):
    sandglass = meta("mobilenetv2", block="sandglass", width=width, **kw)
    plain = meta("mobilenetv2", width=plain_width, **kw)
    size = (3, side, side)
    ratio = count(sandglass, size).multiply_adds / count(plain, size).multiply_adds
    assert abs(ratio - 1) < 0.02


def test_attention_in_sandglasses_sits_at_their_end_on_the_wide_map():
    net = meta("mobilenetv2", block="sandglass", attention="coordinate", reduction=16)
    blocks = [block for stage in net.blocks for block in stage][1:]
    layers = [list(block.dw_after)[-1] for block in blocks]
    assert [layer.conv1.in_channels for layer in layers] == [o for _, _, o, _ in SANDGLASSES]
    assert layers[-1].conv1.out_channels == 1280 // 16


@pytest.mark.parametrize("stages", range(2, 8))
def test_fewer_stages_of_sandglasses_end_in_the_same_classifier(stages):
    kw = {"block": "sandglass", "width": 0.25, "stages": stages, "stem_stride": 1}
    net = create_model("mobilenetv2", num_classes=3, **kw).eval()
    assert net.classifier.weight.shape == (3, 1280)
    features = create_model("mobilenetv2", features_only=True, **kw)
    maps = features(torch.rand(1, 3, 64, 64))
    assert [64 // x.shape[3] for x in maps] == features.feature_info.reduction()
    assert [x.shape[1] for x in maps] == features.feature_info.channels()


def test_norm_and_activation_reach_the_sandglasses():
    kw = {"block": "sandglass", "width": 0.25, "stages": 2}
    net = create_model("mobilenetv2", bn_eps=0.01, act_layer="silu", **kw)
    block = net.blocks[1][0]
    assert block.pw_expand.bn.eps == 0.01
    assert isinstance(block.dw_before.act, torch.nn.SiLU)
    net = create_model("mobilenetv2", norm_layer="groupnorm1", drop_path_rate=0.3, **kw)
    assert isinstance(net.blocks[1][0].dw_after.bn, torch.nn.GroupNorm)
    assert [block.drop_path.drop_prob for block in net.blocks[1]] == pytest.approx([0.1, 0.2])


def test_initial_weights_of_sandglasses_follow_the_same_rule():
    torch.manual_seed(0)
    net = mobilenetv2(block="sandglass", num_classes=10)
    assert net.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    depthwise, pointwise = net.blocks[5][1].dw_after.conv, net.blocks[5][1].pw_expand.conv
    assert depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 960)), rel=0.05)
    assert pointwise.weight.std().item() == pytest.approx(math.sqrt(2 / 960), rel=0.05)


def test_dilation_of_sandglasses_is_that_of_timms_blocks():
    plain, ours = (
        meta("mobilenetv2", block=b, output_stride=8) for b in ("inverted_residual", "sandglass")
    )
    expected = [m.dilation for k, m in plain.named_modules() if k.endswith("conv_dw")]
    assert [b.dw_after.conv.dilation for s in ours.blocks[1:] for b in s] == expected[1:]
    assert [b.dw_before.conv.dilation for s in ours.blocks[1:] for b in s] == expected[1:]
