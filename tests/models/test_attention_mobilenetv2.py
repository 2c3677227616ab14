import json
import logging
import math
from pathlib import Path

import pytest
import timm
import torch

from foveal.models import count, create_model, list_models
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
    ],
)
def test_size_and_arithmetic_are_the_measured_ones(name, kw, parameters, multiply_adds):
    counts = count(meta(name, **kw), (3, 224, 224))
    assert round(counts.parameters / 1e6, 3) == parameters
    assert round(counts.multiply_adds / 1e6, 1) == multiply_adds


def test_plain_multiply_adds_to_the_last_digit():
    assert count(meta("mobilenetv2_100"), (3, 224, 224)).multiply_adds == 300_774_272


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
    ours = {k: v for k, v in meta(name).state_dict().items() if ".se." not in k}
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


def test_initial_weights_follow_the_authors_rule():
    torch.manual_seed(0)
    net = create_model("mobilenetv2_100_coordinate")
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
    ],
)
def test_pretrained_weights_that_do_not_fit_the_trunk_are_refused(plain_file, change, message):
    state = torch.load(plain_file)
    change(state)
    with pytest.raises(ValueError, match=message):
        create_model(
            "mobilenetv2_050_se", pretrained=True, pretrained_cfg_overlay={"state_dict": state}
        )


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
