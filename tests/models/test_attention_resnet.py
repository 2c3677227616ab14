import json
import logging
import math
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from foveal.layers import CoordinateAttention, TripletAttention
from foveal.models import count, create_model, list_models

FIXTURES = Path(__file__).parents[1] / "fixtures" / "triplet_attention"
NAMES = [f"resnet{depth}_{a}" for a in ("triplet", "coordinate") for depth in (18, 34, 50, 101)]


def meta(name, **kw):
    with torch.device("meta"):
        return create_model(name, **kw)


def test_every_depth_and_attention_is_registered():
    assert set(NAMES) <= set(list_models())


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        # Measured on the official code; the parameters to the last digit.
        ("resnet18", 11_689_512, 1814.1),
        ("resnet50", 25_557_032, 4089.2),
        ("resnet101", 44_549_160, 7801.4),
        ("resnet18_triplet", 11_691_912, 1820.5),
        ("resnet34_triplet", 21_802_472, 3676.4),
        ("resnet50_triplet", 25_561_832, 4135.5),
        ("resnet101_triplet", 44_559_060, 7895.8),
    ],
)
def test_size_and_arithmetic_are_the_measured_ones(name, parameters, multiply_adds):
    counts = count(meta(name), (3, 224, 224))
    assert counts.parameters == parameters
    assert round(counts.multiply_adds / 1e6, 1) == multiply_adds


@pytest.mark.parametrize(
    ("kernel_size", "spatial", "each"), [(7, True, 300), (3, True, 60), (3, False, 40)]
)
def test_kernel_size_and_spatial_reach_every_layer(kernel_size, spatial, each):
    net = meta("resnet34_triplet", kernel_size=kernel_size, spatial=spatial)
    layers = [m for m in net.modules() if isinstance(m, TripletAttention)]
    assert len(layers) == 16
    assert {sum(p.numel() for p in layer.parameters()) for layer in layers} == {each}


def test_reduction_reaches_every_layer():
    net = meta("resnet50_coordinate", reduction=16)
    layers = [m for m in net.modules() if isinstance(m, CoordinateAttention)]
    assert len(layers) == 16
    assert [layer.conv1.weight.shape[:2] for layer in layers[::5]] == [
        (16, 256),
        (32, 512),
        (64, 1024),
        (128, 2048),
    ]


@pytest.mark.parametrize("depth", [18, 50])
def test_keys_and_shapes_are_the_official_ones(depth):
    official = json.loads((FIXTURES / "official_keys.json").read_text())[
        f"MODELS.resnet.ResidualNet(ImageNet,{depth},1000,TripletAttention)"
    ]
    gates = {"ChannelGateH": "cw", "ChannelGateW": "hc", "SpatialGate": "hw"}

    def renamed(key):
        for theirs, ours in gates.items():
            key = key.replace(f"triplet_attention.{theirs}.spatial.", f"se.{ours}.conv.")
        return key

    ours = meta(f"resnet{depth}_triplet").state_dict()
    expected = {renamed(key): shape for key, shape in official.items()}
    assert expected == {key: list(value.shape) for key, value in ours.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_trunk_has_timms_keys_and_shapes(name):
    plain = meta(name.partition("_")[0]).state_dict()
    ours = {k: v for k, v in meta(name).state_dict().items() if ".se." not in k}
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in plain.items()}


@pytest.mark.parametrize("name", ["resnet18_triplet", "resnet50_coordinate"])
def test_attention_is_the_last_thing_in_every_residual_branch(name):
    net = create_model(name).eval()
    block = net.layer2[0]
    last = block.bn2 if name.startswith("resnet18") else block.bn3
    seen = {}
    last.register_forward_hook(lambda m, args, out: seen.update(normalised=out))
    block.se.register_forward_hook(lambda m, args, out: seen.update(x=args[0], y=out.clone()))
    block.downsample.register_forward_hook(lambda m, args, out: seen.update(shortcut=out.clone()))
    block.register_forward_hook(lambda m, args, out: seen.update(block=out))
    net(torch.randn(1, 3, 64, 64))
    assert torch.equal(seen["x"], seen["normalised"])
    torch.testing.assert_close(seen["block"], (seen["y"] + seen["shortcut"]).relu())


def test_the_pool_is_global_at_every_size():
    net = create_model("resnet18_triplet", num_classes=3).eval()
    for height, width in [(224, 224), (300, 160), (48, 40)]:
        maps = net.forward_features(torch.randn(1, 3, height, width))
        expected = net.fc(maps.mean((2, 3)))
        torch.testing.assert_close(net.forward_head(maps), expected)


def test_the_small_stem_keeps_the_pictures_size():
    net = create_model("resnet18_triplet", num_classes=10, stem_stride=1).eval()
    assert net.conv1.weight.shape == (64, 3, 3, 3)
    assert net.conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.1)
    assert isinstance(net.maxpool, nn.Identity)
    sides = []
    for stage in (net.act1, net.layer1, net.layer2, net.layer3, net.layer4):
        stage.register_forward_hook(lambda m, args, out: sides.append(out.shape[-1]))
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert sides == [32, 32, 16, 8, 4]
    assert [level["reduction"] for level in net.feature_info] == [1, 1, 2, 4, 8]


@pytest.mark.parametrize(
    ("stem_stride", "output_stride", "side"),
    [(2, 32, 2), (2, 16, 4), (2, 8, 8), (1, 32, 8), (1, 8, 8), (1, 4, 16), (1, 2, 32)],
)
def test_output_stride_counts_from_the_input(stem_stride, output_stride, side):
    net = meta("resnet18_triplet", stem_stride=stem_stride, output_stride=output_stride)
    with torch.device("meta"):
        assert net.forward_features(torch.empty(2, 3, 64, 64)).shape[-1] == side


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"stem_stride": 4}, "stem_stride must be 1 or 2, not 4"),
        ({"output_stride": 4}, "must be 8, 16 or 32 with stem_stride=2, not 4"),
        (
            {"output_stride": 3, "stem_stride": 1},
            "must be 2, 4, 8, 16 or 32 with stem_str.*, not 3",
        ),
        ({"features_only": True, "out_indices": (0, 5)}, "indices from 0 to 4, not \\(0, 5\\)"),
        ({"stem_stride": 1, "stem_type": "deep", "stem_width": 32}, "without stem_type, "),
        ({"stem_stride": 1, "pretrained": True}, "for the 7x7 stem: leave stem_stride=1 out"),
        ({"kernel_size": 6}, "kernel_size must be odd and at least 1, not 6"),
    ],
)
def test_impossible_arguments_are_refused(kw, message):
    with pytest.raises(ValueError, match=message):
        create_model("resnet18_triplet", **kw)


@pytest.mark.parametrize("argument", ["block", "layers", "block_args"])
def test_what_the_name_stands_for_is_no_argument(argument):
    with pytest.raises(TypeError, match=f"^{argument} is fixed by the name 'resnet18_triplet'$"):
        create_model("resnet18_triplet", **{argument: (1, 1, 1, 1)})


def test_an_unknown_argument_gets_the_nearest_one():
    with pytest.raises(TypeError, match="argument 'kernel_siz': did you mean 'kernel_size'"):
        create_model("resnet18_triplet", kernel_siz=3)


def test_initial_weights_of_triplet_nets_follow_the_authors_rule():
    torch.manual_seed(0)
    net = create_model("resnet50_triplet")
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            std = module.weight.std().item()
            fan_in = module.in_channels * module.kernel_size[0] ** 2
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            # PyTorch's own draw is uniform within sqrt(1 / fan_in).
            own = math.sqrt(1 / fan_in / 3)
            expected = own if "downsample" in name else math.sqrt(2 / fan_out)
            assert std == pytest.approx(expected, rel=0.05), name
        if isinstance(module, nn.BatchNorm2d):
            scale = 0 if name.endswith(".se.hw.conv.bn") else 1
            assert (module.weight == scale).all(), name
            assert not module.bias.any()
    gates = [m.cw.conv.conv.weight for m in net.modules() if isinstance(m, TripletAttention)]
    assert torch.stack(gates).std().item() == pytest.approx(math.sqrt(2 / 49), rel=0.1)
    # The gate over height and width begins at 1/2.
    layer = net.layer1[0].se
    assert (layer.gates(torch.randn(2, 256, 8, 8))[2] == 0.5).all()


def test_initial_weights_of_coordinate_nets():
    torch.manual_seed(0)
    net = create_model("resnet18_coordinate")
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            expected = math.sqrt(2 / fan_out)
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1), name
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            assert not module.bias.any(), name
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all(), name


@pytest.mark.parametrize("name", ["resnet18_triplet", "resnet18_coordinate"])
def test_attention_learns_in_the_first_step(name):
    torch.manual_seed(0)
    net = create_model(name, num_classes=4, stem_stride=1)
    net(torch.randn(4, 3, 32, 32)).square().sum().backward()
    weights = {k: p.grad for k, p in net.named_parameters() if ".se." in k and p.grad.any()}
    assert any(k.startswith("layer1.0.se") for k in weights)
    assert any(k.startswith("layer4.1.se") for k in weights)


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory):
    """Weights of timm's plain network, as published: a file with its state_dict."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "plain.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
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
        net = create_model("resnet18_triplet", True, pretrained_cfg_overlay=overlay, **kw)
    plain = torch.load(plain_file)
    for key, value in net.state_dict().items():
        key = key.removeprefix("model.")
        if ".se." not in key and not (key.startswith("fc") and "num_classes" in kw):
            assert torch.equal(value, plain[key]), key
    message = " ".join(record.getMessage() for record in caplog.records)
    assert "144 tensors of 8 attention layers are new" in message  # 18 in each layer
    assert "layer1.0.se" in message


def test_weights_of_ones_own_network_with_the_small_stem_load(plain_file):
    kw = {"stem_stride": 1, "num_classes": 4}
    state = create_model("resnet18_coordinate", **kw).state_dict()
    state = {key: value for key, value in state.items() if ".se." not in key}
    overlay = {"state_dict": dict(state), "num_classes": 4}
    net = create_model("resnet18_triplet", True, pretrained_cfg_overlay=overlay, **kw)
    ours = net.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in state.items())
    with pytest.raises(ValueError, match=r"shapes: conv1\.weight \[64, 3, 7, 7\] where .* 3, 3\]$"):
        create_model(
            "resnet18_triplet",
            True,
            stem_stride=1,
            pretrained_cfg_overlay={"file": str(plain_file)},
        )
    with pytest.raises(ValueError, match="for the 7x7 stem: leave stem_stride=1 out"):
        create_model("resnet18_triplet.trunk_a1_in1k", True, stem_stride=1)


def test_published_weights_are_timms():
    for name in NAMES:
        ours = timm.models.get_pretrained_cfg(name)
        plain = timm.models.get_pretrained_cfg(name.partition("_")[0])
        assert (ours.url, ours.hf_hub_id, ours.mean) == (plain.url, plain.hf_hub_id, plain.mean)
