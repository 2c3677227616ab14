import logging

import pytest
import timm
import torch

from foveal.layers import CoordinateAttention
from foveal.models import count, create_model


def meta(name, **kw):
    with torch.device("meta"):
        return create_model(name, **kw)


@pytest.mark.parametrize(
    ("reduction", "parameters", "multiply_adds"),
    [(32, 5.382, 394), (24, 5.615, 397), (16, 6.083, 402)],
)
def test_size_and_arithmetic_are_the_measured_ones(reduction, parameters, multiply_adds):
    counts = count(meta("efficientnet_b0_coordinate", reduction=reduction), (3, 224, 224))
    assert round(counts.parameters / 1e6, 3) == parameters
    assert round(counts.multiply_adds / 1e6) == multiply_adds


def test_the_published_5_4_million_is_the_default():
    counts = count(meta("efficientnet_b0_coordinate"), (3, 224, 224))
    assert round(counts.parameters / 1e6, 1) == 5.4


def test_attention_stands_where_squeeze_and_excitation_stood():
    plain, ours = meta("efficientnet_b0"), meta("efficientnet_b0_coordinate")
    places = {k: m.conv_reduce.in_channels for k, m in plain.named_modules() if k.endswith(".se")}
    found = {
        k: m.conv1.in_channels
        for k, m in ours.named_modules()
        if isinstance(m, CoordinateAttention)
    }
    assert len(found) == 16
    assert found == places


def test_all_other_keys_shapes_and_settings_are_timms():
    plain, ours = meta("efficientnet_b0"), meta("efficientnet_b0_coordinate")
    keys = [
        {k: v.shape for k, v in net.state_dict().items() if ".se." not in k}
        for net in (plain, ours)
    ]
    assert keys[0] == keys[1]
    for key, theirs in plain.named_modules():
        if ".se" not in key:
            mine = ours.get_submodule(key)
            assert (type(mine), mine.extra_repr()) == (type(theirs), theirs.extra_repr()), key
    assert ours.pretrained_cfg["hf_hub_id"] == plain.pretrained_cfg["hf_hub_id"]


@pytest.fixture(scope="module")
def plain_state():
    torch.manual_seed(3)
    return timm.create_model("efficientnet_b0").state_dict()


def test_pretrained_fills_the_trunk_and_leaves_the_replaced_layers_out(plain_state, caplog):
    overlay = {"state_dict": dict(plain_state)}
    with caplog.at_level(logging.WARNING, "foveal"):
        net = create_model(
            "efficientnet_b0_coordinate", pretrained=True, pretrained_cfg_overlay=overlay
        )
    trunk = {key: value for key, value in net.state_dict().items() if ".se." not in key}
    assert len(trunk) == len(plain_state) - 16 * 4
    assert all(torch.equal(value, plain_state[key]) for key, value in trunk.items())
    new, left_out = (record.getMessage() for record in caplog.records)
    assert new.startswith("176 tensors of 16 attention layers are new")
    assert left_out.startswith("64 pretrained tensors are left out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.2.1.conv_dw.weight"), "missing: blocks.2.1.conv_dw.weight"),
        (lambda s: s.update({"blocks.2.1.se.gate.weight": s["bn1.bias"]}), "unexpected: .*se.gate"),
    ],
)
def test_pretrained_weights_that_do_not_fit_the_trunk_are_refused(plain_state, change, message):
    state = dict(plain_state)
    change(state)
    with pytest.raises(ValueError, match=message):
        create_model(
            "efficientnet_b0_coordinate",
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": state},
        )


def test_the_trunk_computes_what_timms_does():
    torch.manual_seed(0)
    plain = timm.create_model("efficientnet_b0").eval()
    overlay = {"state_dict": plain.state_dict()}
    ours = create_model(
        "efficientnet_b0_coordinate", pretrained=True, pretrained_cfg_overlay=overlay
    ).eval()
    for net in (plain, ours):
        for stage in net.blocks:
            for block in stage:
                block.se = torch.nn.Identity()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(x), plain(x))


def test_stem_stride_and_reduction_are_arguments():
    net = create_model("efficientnet_b0_coordinate", stem_stride=1, reduction=4, num_classes=3)
    assert net.blocks[5][0].se.conv1.out_channels == 672 // 4
    assert net.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 3)
