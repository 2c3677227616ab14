import logging

import pytest
import timm
import torch
from safetensors.torch import save_file

from foveal.layers import MixedPooling, PyramidPooling, SqueezeExcite, StripPooling
from foveal.models import count, create_model

TINY = {"layers": (2, 1, 3, 2), "channels": (8, 8, 12, 16), "stem_width": 8}


def tiny(**kw):
    torch.manual_seed(0)
    return create_model("spnet", **{"num_classes": 5, "backbone_args": TINY} | kw)


def meta(**kw):
    with torch.device("meta"):
        return create_model("spnet", **kw)


# Millions of parameters, and 1e9 multiply-adds at 480 and 768 pixels, of the official code with 150
# classes: all of it, the trunk with its gates; convolutions only, the auxiliary head among them.
MEASURED = {
    ("resnet50s", "auto"): (47.84, 29.75, 151.7, 387.1),
    ("resnet50s", None): (41.72, 23.63, 148.2, 378.5),
    ("resnet101s", "auto"): (66.83, 48.74, 219.9, 561.7),
    ("resnet101s", None): (60.71, 42.62, 216.4, 553.0),
}


@pytest.mark.parametrize(("backbone", "gate"), MEASURED)
def test_sizes_are_those_measured_on_the_official_code(backbone, gate):
    whole, trunk, *giga = MEASURED[backbone, gate]
    net = meta(backbone=backbone, gate=gate, num_classes=150)
    parameters = {name: sum(p.numel() for p in m.parameters()) for name, m in net.named_children()}
    assert round(sum(parameters.values()) / 1e6, 2) == whole
    assert round(parameters["backbone"] / 1e6, 2) == trunk
    assert round(parameters["head"] / 1e6, 2) == 15.69
    assert round(parameters["auxiliary_head"] / 1e6, 2) == 2.40
    for side, expected in zip((480, 768), giga, strict=True):
        n = side // 8
        # Averaging into 20 x 20 and 12 x 12 bins: twice down and across, for 256 channels, in two.
        pools = sum(2 * 256 * (k * n * n + k * k * n) for k in (20, 12))
        auxiliary = count(net.auxiliary_head, (1024, n, n)).multiply_adds
        own = count(net, (3, side, side)).multiply_adds
        assert round((own - pools + auxiliary) / 1e9, 1) == expected


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [({"num_classes": 5, "gate": None}, 41_609_418), ({}, 47_738_794)],
)
def test_parameters_are_exactly_the_official_ones(arguments, parameters):
    assert sum(p.numel() for p in meta(**arguments).parameters()) == parameters


def test_gates_are_the_measured_6_12_million_and_mixed_pooling_8_80():
    net = meta(num_classes=150)
    gates = [m for m in net.modules() if isinstance(m, StripPooling)]
    assert [m.channels for m in gates] == [64, 128, 256, 512, 512, 512]
    assert round(sum(p.numel() for m in gates for p in m.parameters()) / 1e6, 2) == 6.12
    assert all(isinstance(m, MixedPooling) for m in net.head.context)
    assert round(sum(p.numel() for p in net.head.context.parameters()) / 1e6, 2) == 8.80


def test_the_pyramid_head_is_the_measured_23_15_million():
    net = meta(num_classes=150, context="pyramid", gate=None)
    assert isinstance(net.head.context, PyramidPooling)
    assert round(sum(p.numel() for p in net.head.parameters()) / 1e6, 2) == 23.15


@pytest.mark.parametrize(
    ("output_stride", "dilations"),
    [(8, [1, 2, 2, 2, 2, 2, 4, 8, 16]), (16, [1] * 6 + [2, 4, 8]), (32, [1] * 6 + [1, 2, 4])],
)
def test_dilations_of_the_last_two_stages(output_stride, dilations):
    trunk = meta(output_stride=output_stride).backbone.model
    convs = [block.conv2 for stage in (trunk.layer3, trunk.layer4) for block in stage]
    assert [conv.dilation for conv in convs] == [(d, d) for d in dilations]
    assert [conv.padding for conv in convs] == [(d, d) for d in dilations]


def test_gates_are_in_the_last_block_of_each_stage_and_in_all_of_the_last():
    names = [n for n, m in tiny().named_modules() if isinstance(m, StripPooling)]
    blocks = ["layer1.1", "layer2.0", "layer3.2", "layer4.0", "layer4.1"]
    assert names == [f"backbone.model.{block}.act2.gate" for block in blocks]
    rivals = [n for n, m in tiny(gate="se").named_modules() if isinstance(m, SqueezeExcite)]
    assert rivals == names
    assert not any("gate" in n for n, _ in tiny(gate=None).named_modules())


def test_a_gate_multiplies_between_the_3x3_and_the_last_1x1_convolution():
    block = tiny().eval().backbone.model.layer1[1]
    x = torch.rand(1, 32, 6, 5)
    y = block.bn1(block.conv1(x)).relu()
    y = block.bn2(block.conv2(y)).relu()
    y = y * block.act2.gate.gate(y)
    torch.testing.assert_close(block(x), (x + block.bn3(block.conv3(y))).relu())


def test_the_auxiliary_head_runs_once_in_training_and_on_request_only():
    net = tiny()
    calls = []
    net.auxiliary_head.register_forward_hook(lambda *_: calls.append(1))
    x = torch.rand(2, 3, 33, 41)
    logits, auxiliary = net(x)
    assert logits.shape == auxiliary.shape == (2, 5, 33, 41)
    assert calls == [1]
    assert net.auxiliary_head.bn.num_batches_tracked == 1
    assert net(x, auxiliary=False).shape == logits.shape
    net.eval()
    plain = net(x)
    assert calls == [1]
    again, _ = net(x, auxiliary=True)
    assert calls == [1, 1]
    assert torch.equal(again, plain)


def test_without_an_auxiliary_head_training_returns_logits():
    net = tiny(auxiliary=False)
    assert net(torch.rand(2, 3, 33, 41)).shape == (2, 5, 33, 41)
    assert net.default_cfg["classifier"] == ("head.score.classifier",)
    with pytest.raises(ValueError, match="the network has no auxiliary head: leave auxiliary out"):
        net(torch.rand(2, 3, 33, 41), auxiliary=True)


def test_initial_weights_are_drawn_by_the_authors_rule():
    net = create_model("spnet", num_classes=2, backbone_args={"layers": (1, 1, 1, 1)})
    for block in net.backbone.model.layer4:
        assert (block.bn3.weight == 1).all()
        for conv in (block.conv2, block.act2.gate.conv1, block.act2.gate.conv3):
            kernel = conv.kernel_size[0] * conv.kernel_size[1]
            expected = (2 / (kernel * conv.out_channels)) ** 0.5
            assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)
    head = net.head.reduce[0].weight  # torch's own: uniform within 1 / sqrt(fan in)
    assert head.abs().max().item() == pytest.approx(1 / 2048**0.5, rel=1e-3)


@pytest.mark.parametrize("kind", ["published", "checkpoint"])
def test_the_trunk_takes_weights_of_the_plain_network(tmp_path, caplog, kind):
    plain = timm.create_model("resnet50s", **TINY)
    path = tmp_path / "plain.safetensors"
    save_file(plain.state_dict(), path)
    arguments = {"backbone_checkpoint": path}
    if kind == "published":
        overlay = {"file": str(path), "num_classes": 1000}
        arguments = {
            "pretrained": True,
            "backbone_args": {**TINY, "pretrained_cfg_overlay": overlay},
        }
    with caplog.at_level(logging.WARNING, logger="foveal"):
        net = tiny(**arguments)
    assert caplog.messages == ["the gates in the backbone are new, everything else is pretrained"]
    own = net.backbone.model.state_dict()
    same = {
        key for key, value in plain.state_dict().items() if key in own and own[key].equal(value)
    }
    assert own.keys() - same == {key for key in own if ".gate." in key}
    assert plain.state_dict().keys() - same == {"fc.weight", "fc.bias"}


def test_other_backbones_have_the_decoder_without_gates():
    net = create_model("spnet", backbone="mobilenetv2_050_coordinate", num_classes=4)
    assert not any(isinstance(m, StripPooling) for m in net.modules())
    assert net.head.reduce[0].weight.shape[:2] == (80, 160)
    assert net.auxiliary_head.conv.in_channels == 48
    with pytest.raises(ValueError, match="gate='strip' is for ResNets of bottlenecks, which 'res"):
        meta(backbone="resnet18", gate="strip")
    # A ResNet of bottlenecks with an attention of its own has both.
    gated = meta(backbone="resnet50_triplet").backbone.model.layer4[0]
    assert isinstance(gated.act2.gate, StripPooling)
    assert gated.se is not None


def test_unknown_choices_get_the_nearest():
    with pytest.raises(ValueError, match="unknown context 'pyramide': did you mean 'pyramid'"):
        meta(context="pyramide")
    with pytest.raises(TypeError, match="auxiliary must be True or False, not 'yes'"):
        meta(auxiliary="yes")
    with pytest.raises(ValueError, match="unknown layer 'stripe': did you mean 'strip'"):
        meta(gate="stripe")
