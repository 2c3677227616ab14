"""Re-attention in place of timm's attention: what stays, what is new, what is refused."""

import copy
import pickle

import pytest
import timm
import torch
from timm.layers.attention import Attention
from torch import nn

import foveal
from foveal.layers import ReAttention
from foveal.surgery import insert

ARGUMENTS = {
    "test_vit": {"img_size": 32, "num_classes": 5},
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "depth": 3, "num_classes": 5},
    "vit_tiny_patch16_224": {  # norms of queries and keys, no bias, registers
        "img_size": 32,
        "depth": 2,
        "num_classes": 5,
        "qkv_bias": False,
        "qk_norm": True,
        "reg_tokens": 2,
    },
}


def build(name="test_vit", **kw):
    torch.manual_seed(0)
    model = timm.create_model(name, **ARGUMENTS[name], **kw)
    with torch.no_grad():  # as if trained: no bias is 0 and attention is not flat
        for key, value in model.named_parameters():
            value.add_(0.05 * torch.randn_like(value))
            if "qkv.weight" in key:
                value.mul_(4)
    return model.eval()


def pictures(batch=2):
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def attentions(model):
    return [block.attn for block in model.blocks]


def assert_same(found, expected, tolerance=1e-6):
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_identity_computes_what_the_plain_network_does(name, fused):
    model = build(name).double()
    for attention in attentions(model):
        attention.fused_attn = fused
    x = pictures().double()
    before = model(x)
    report = insert(model, "reattention", where="blocks", identity=True)
    assert all(type(attention) is ReAttention for attention in attentions(model))
    assert_same(model(x), before, 1e-12)
    assert_same(model.float()(x.float()), before.float(), 5e-5)
    assert report.notes == ()


def test_identity_has_gradients_and_learns():
    model = build().train()
    insert(model, "reattention", where="blocks.[12].attn", identity=True)
    x, before = pictures(), model.blocks[1].attn.qkv.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(x).square().sum().backward()
    optimizer.step()
    theta = model.blocks[1].attn.reatten_matrix.weight[:, :, 0, 0].detach()
    assert (theta - torch.eye(len(theta))).abs().max() > 0
    assert not torch.equal(model.blocks[1].attn.qkv.weight, before)


def test_weights_stay_the_same_objects_and_only_theta_and_norm_are_new():
    model = build(attn_drop_rate=0.1, proj_drop_rate=0.2)
    model.blocks[0].attn.qkv.requires_grad_(False)
    old, keys = attentions(model), list(model.state_dict())
    parameters = dict(model.named_parameters())
    insert(model, "reattention", where="blocks")
    for before, after in zip(old, attentions(model), strict=True):
        for part in ("qkv", "proj", "q_norm", "k_norm", "attn_drop", "proj_drop"):
            assert getattr(after, part) is getattr(before, part)
        assert after.scale == before.scale
    own = dict(model.named_parameters())
    assert all(own[key] is value for key, value in parameters.items())
    assert not own["blocks.0.attn.qkv.weight"].requires_grad
    assert own["blocks.0.attn.reatten_matrix.weight"].requires_grad
    new = {key.removeprefix("blocks.1.attn.") for key in model.state_dict() if "blocks.1." in key}
    new -= {key.removeprefix("blocks.1.attn.") for key in keys}
    assert new == {
        "reatten_matrix.weight",
        "reatten_matrix.bias",
        "var_norm.weight",
        "var_norm.bias",
        "var_norm.running_mean",
        "var_norm.running_var",
        "var_norm.num_batches_tracked",
        "tokens",
    }


def test_a_mixture_acts_as_the_formula_says():
    model = build()
    insert(model, "reattention", where="blocks.0.attn", norm="layer", transform_scale=True)
    layer = model.blocks[0].attn
    heads, width = layer.num_heads, layer.head_dim
    x = torch.randn(2, 5, heads * width)
    q, k, v = layer.qkv(x).reshape(2, 5, 3, heads, width).unbind(2)
    maps = torch.einsum("bqhd,bkhd->bqkh", q, k).div(width**0.5).softmax(2)
    theta = layer.reatten_matrix.weight[:, :, 0, 0]
    mixed = maps @ theta.T + layer.reatten_matrix.bias
    mixed = nn.functional.layer_norm(mixed, (heads,)) / width**0.5
    expected = layer.proj(torch.einsum("bqkh,bkhd->bqhd", mixed, v).flatten(2))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("where", "blocks"),
    [
        ("blocks", range(6)),
        ("blocks.[45].attn", (4, 5)),
        ("blocks.*.attn", range(6)),
        (lambda name, module: isinstance(module, Attention) and "3" in name, (3,)),
    ],
)
def test_where(where, blocks):
    model = build()
    report = insert(model, "reattention", where=where)
    assert [place.name for place in report.places] == [f"blocks.{i}.attn" for i in blocks]
    found = [i for i, attention in enumerate(attentions(model)) if type(attention) is ReAttention]
    assert found == list(blocks)


def test_the_report():
    model = build()
    heads, before = model.blocks[0].attn.num_heads, foveal.models.count(model, (3, 32, 32))
    report = insert(model, "reattention", where="blocks.[45].attn", identity=True)
    added = 2 * (heads**2 + heads)
    assert report.after.parameters - report.before.parameters == added
    assert report.before == before
    # 5 tokens, and H values from H at each of the N x N places.
    assert report.after.multiply_adds - before.multiply_adds == 2 * heads**2 * 25
    lines = str(report).splitlines()
    assert lines[0] == (
        "reattention in place of 2 modules of VisionTransformer (where: blocks.[45].attn), "
        "starting at identity"
    )
    assert [line.split() for line in lines[2:5]] == [
        ["in", "place", "of", "heads", "tokens", "new", "parameters"],
        ["blocks.4.attn", str(heads), "5", str(added // 2)],
        ["blocks.5.attn", str(heads), "5", str(added // 2)],
    ]
    assert repr(report) == "ReplacementReport('reattention' in place of 2 modules)"


def test_a_start_that_is_not_the_identity_is_noted():
    (note,) = insert(build(), "reattention", where="blocks", identity=True, norm="batch").notes
    assert note.startswith("norm='batch' changes the maps from the first step on")
    report = insert(build(), "reattention", where="blocks", identity=True, transform_scale=True)
    assert "transform_scale multiplies the maps" in report.notes[0]
    assert insert(build(), "reattention", where="blocks").notes == ()


def test_undo_brings_the_modules_back():
    model = build()
    keys, old, x = list(model.state_dict()), attentions(model), pictures()
    before = model(x)
    report = insert(model, "reattention", where="blocks")
    assert not torch.equal(model(x), before)
    report.undo()
    report.undo()
    assert all(a is b for a, b in zip(attentions(model), old, strict=True))
    assert list(model.state_dict()) == keys
    assert torch.equal(model(x), before)
    report.apply()
    assert all(type(attention) is ReAttention for attention in attentions(model))


def test_undo_keeps_the_mode_that_the_network_has_now():
    model = build(attn_drop_rate=0.5).train()
    report = insert(model, "reattention", where="blocks")
    model.eval()
    report.undo()
    assert not any(module.training for module in attentions(model))
    x = pictures()
    assert torch.equal(model(x), model(x))  # no dropout


def test_the_latency_changes_nothing():
    model = build(attn_drop_rate=0.5).train()
    report = insert(model, "reattention", where="blocks.[01].attn")
    model.blocks[0].attn.var_norm.eval()
    layers, state = attentions(model), copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    latency = report.latency
    assert min(latency.before, latency.after) > 0
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(a is b for a, b in zip(attentions(model), layers, strict=True))
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_mode_type_and_device_are_kept(training):
    model = build().bfloat16().train(training)
    insert(model, "reattention", where="blocks")
    assert all(module.training == training for module in model.modules())
    mixing = ("reatten_matrix", "var_norm")  # they stay exact
    kinds = {(any(m in k for m in mixing), w.dtype) for k, w in model.named_parameters()}
    assert kinds == {(False, torch.bfloat16), (True, torch.float32)}
    assert model(pictures().bfloat16()).dtype == torch.bfloat16
    with torch.device("meta"):
        empty = build()
    report = insert(empty, "reattention", where="blocks", identity=True)
    assert all(value.is_meta for value in empty.state_dict().values())
    assert report.latency is None


def test_copies_and_pickles():
    model = build()
    insert(model, "reattention", where="blocks", norm="layer")
    x = pictures()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))
        assert other.blocks[0].attn.qkv.weight is not model.blocks[0].attn.qkv.weight


class Odd(nn.Module):
    def __init__(self, attention, runs=True):
        super().__init__()
        self.attention, self.runs = attention, runs

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens) if self.runs else tokens


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"where": "blocks.*"}, r"'blocks.0' \(Block\) is no attention .* mean 'blocks.0.attn'"),
        ({"where": "blocks.1.att"}, r"matches no module .* did you mean 'blocks.1.attn'"),
        ({"where": "blocks.1.mlp"}, r"'blocks.1.mlp' \(Mlp\) .* did you mean 'blocks.1.attn'"),
        ({"where": "stages"}, r"'stages' is a rule for layers of maps: re-attention takes"),
        ({"where": lambda name, module: False}, r"the function where chose no module"),
        ({"norm": "group"}, r"norm must be 'batch', 'layer' or 'none', not 'group'"),
        ({"input_size": (4, 32, 32)}, r"does not run on shapes of an input \[4, 32, 32\]"),
    ],
)
def test_errors_leave_the_network_as_it_was(arguments, words):
    model = build()
    old = attentions(model)
    with pytest.raises(ValueError, match=words):
        insert(model, "reattention", **{"where": "blocks", **arguments})
    assert all(a is b for a, b in zip(attentions(model), old, strict=True))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"where": 3}, "where must be a rule, a pattern or a function, not int"),
        ({"where": Attention}, "not a class: .* isinstance.module, Attention"),
        ({"identity": 1}, "identity must be True or False, not 1"),
        ({"nrm": "none"}, "unknown reattention argument 'nrm': did you mean 'norm'"),
    ],
)
def test_arguments_of_a_wrong_type(arguments, words):
    with pytest.raises(TypeError, match=words):
        insert(build(), "reattention", **{"where": "blocks", **arguments})


def test_attention_that_cannot_be_replaced():
    size = (8, 2, 3)
    for part, attention in (
        ("gate", Attention(8, 2, gated=True)),
        ("norm", Attention(8, 2, scale_norm=True, norm_layer=nn.LayerNorm)),
    ):
        for where in ("attention", "blocks"):
            with pytest.raises(ValueError, match=f"'attention' has a {part}, which re-attention"):
                insert(Odd(attention), "reattention", where=where, input_size=size)
    with pytest.raises(ValueError, match="'attention' is not run by the network"):
        insert(Odd(Attention(8, 2), runs=False), "reattention", where="blocks", input_size=size)
    twice = Odd(Attention(8, 2))
    insert(twice, "reattention", where="blocks", input_size=size)
    with pytest.raises(ValueError, match="'attention' is re-attention already"):
        insert(twice, "reattention", where="attention", input_size=size)
    with pytest.raises(ValueError, match=r"timm's Attention; it has WindowAttention$"):
        insert(timm.create_model("swin_tiny_patch4_window7_224"), "reattention", where="blocks")
    with pytest.raises(ValueError, match=r"unknown layer 'reatention': did you mean 'reattention'"):
        insert(build(), "reatention", where="blocks")
