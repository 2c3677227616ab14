import copy
import logging
import math

import pytest
import timm
import torch
from torch import nn

from foveal.layers import ReAttention
from foveal.models import check_input_size, count, create_model, list_models
from foveal.models.deepvit import DeepBlock
from foveal.models.patch_embed import ConvPatchEmbed

SMALL = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 4,
    "num_heads": 3,
    "re_attention": 2,
    "num_classes": 5,
}


def meta(name, **kw):
    with torch.device("meta"):
        return create_model(name, **kw)


def small(**kw):
    torch.manual_seed(0)
    return create_model("deepvit", **{**SMALL, **kw})


def pictures(batch=2, height=32, width=32):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def layers(net):
    return [m for m in net.modules() if isinstance(m, ReAttention)]


# Measured on the authors' code: parameters, and multiply-adds of convolutions (theta's among them),
# linear layers and 2 N^2 C of each block; then width, which blocks mix, tokens. The plain networks
# lack H^2 + 3 H parameters and H^2 N^2 multiply-adds in each block.
MEASURED = {
    "deepvit_16_patch16_224": (24_426_664, 5.27, 384, range(16), 197),
    "deepvit_24_patch16_224": (36_261_448, 7.88, 384, range(24), 197),
    "deepvit_32_patch16_224": (48_096_232, 10.49, 384, range(32), 197),
    "deepvit_16_plain_patch16_224": (24_426_664 - 16 * 180, 5.27 - 16 * 0.00559, 384, (), 197),
    "deepvit_24_plain_patch16_224": (36_261_448 - 24 * 180, 7.88 - 24 * 0.00559, 384, (), 197),
    "deepvit_32_plain_patch16_224": (48_096_232 - 32 * 180, 10.49 - 32 * 0.00559, 384, (), 197),
    "deepvit_small_patch16_224": (27_312_632, 6.36, 396, range(11, 16), 197),
    "deepvit_large_patch16_224": (55_636_016, 12.48, 408, range(20, 32), 197),
    "deepvit_large_420_patch16_224": (58_883_708, 13.15, 420, range(20, 32), 197),
    "deepvit_large_420_patch16_384": (59_043_308, 44.79, 420, range(20, 32), 577),
}


@pytest.mark.parametrize("name", MEASURED)
def test_sizes_are_the_measured_ones(name):
    parameters, giga, width, mixing, tokens = MEASURED[name]
    net = meta(name)
    counts = count(net, net.default_cfg["input_size"])
    assert counts.parameters == parameters
    assert [i for i, block in enumerate(net.blocks) if layers(block)] == [*mixing]
    assert net.pos_embed.shape == (1, tokens, width)
    assert counts.multiply_adds / 1e9 == pytest.approx(giga, abs=0.005)


def test_the_names_are_those_of_the_table_and_the_general_one():
    assert set(list_models("deepvit*")) == {*MEASURED, "deepvit"}


@pytest.mark.parametrize("name", MEASURED)
def test_pictures_are_prepared_as_by_the_authors(name):
    cfg = meta(name, num_classes=3).default_cfg
    side = int(name[-3:])
    assert cfg["input_size"] == (3, side, side)
    assert (cfg["mean"], cfg["std"]) == ((0.5,) * 3, (0.5,) * 3)
    assert (cfg["crop_pct"], cfg["interpolation"]) == (1.0 if side == 384 else 0.9, "bicubic")
    stem = "patch_embed.conv1" if "small" in name or "large" in name else "patch_embed.proj"
    assert (cfg["first_conv"], cfg["classifier"]) == (stem, "head")
    assert timm.models.get_pretrained_cfg(name).first_conv == stem


def test_initial_weights_are_the_authors():
    net = small(embed_dim=96, num_heads=12, stem="conv", depth=6, re_attention=3)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            assert not module.bias.any()
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-6
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-5, 0.1)
    theta = torch.stack([layer.reatten_matrix.weight for layer in layers(net)])
    bound = 1 / math.sqrt(12)  # PyTorch's uniform draw
    assert 0.95 * bound < theta.abs().max() <= bound
    assert theta.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    weight = net.patch_embed.conv2.weight
    assert weight.std().item() == pytest.approx((3 * 64 * 9) ** -0.5, rel=0.1)
    assert all(layer.tokens == 0 for layer in layers(net))


@pytest.mark.parametrize("weight_init", ["", "jax", "moco"])
def test_theta_begins_as_asked_whatever_else_is_drawn(weight_init):
    net = small(theta_init="identity", weight_init=weight_init)
    with torch.device("meta"):
        empty = create_model("deepvit", **SMALL, theta_init="identity", weight_init=weight_init)
    empty.to_empty(device="cpu")
    empty.init_weights()  # as timm's way from the meta device is
    for layer in (*layers(net), *layers(empty)):
        assert torch.equal(layer.reatten_matrix.weight[:, :, 0, 0], torch.eye(3))
        assert not layer.reatten_matrix.bias.any()
        assert layer.tokens == 0


@pytest.mark.parametrize("mixes", [True, False])
def test_a_block_is_the_formula_with_layer_norm_of_the_scaled_tokens(mixes):
    """LN(a x) and LN(x) differ by eps alone, which is made large here."""
    torch.manual_seed(0)
    block = DeepBlock(
        12,
        3,
        mlp_ratio=3,
        norm_layer=lambda dim, **kw: nn.LayerNorm(dim, eps=0.5, **kw),
        adjustment=0.5,
        re_attention={},
        mixing=(0,) if mixes else (),
    )
    block = block.double().eval()
    x = torch.randn(2, 7, 12).double()
    norm1, norm2 = block.norm1, block.norm2

    def normed(norm, x):
        centred = x - x.mean(-1, keepdim=True)
        return norm.weight * centred / (centred.square().mean(-1, keepdim=True) + 0.5).sqrt()

    y = x + 2 * block.attn(normed(norm1, 0.5 * x))
    y = y + 2 * block.mlp(normed(norm2, 0.5 * y))
    torch.testing.assert_close(block(x), y)
    wrong = x + 2 * block.attn(normed(norm1, x))
    assert not torch.allclose(block(x), wrong + 2 * block.mlp(normed(norm2, wrong)), rtol=1e-3)


@pytest.mark.parametrize("patch", [2, 6, 8, 10, 16])
def test_the_convolutional_stem_is_its_formula(patch):
    torch.manual_seed(0)
    embed = ConvPatchEmbed(img_size=3 * patch, patch_size=patch, embed_dim=7).double().eval()
    for norm in (embed.bn1, embed.bn2):
        nn.init.normal_(norm.running_mean, 0, 0.3)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    x = torch.randn(2, 3, 3 * patch, 3 * patch).double()
    y = x
    for conv, norm, stride, pad in (
        (embed.conv1, embed.bn1, 2, 3),
        (embed.conv2, embed.bn2, 1, 1),
    ):
        y = nn.functional.conv2d(y, conv.weight, None, stride, pad)
        mean, var = norm.running_mean[:, None, None], norm.running_var[:, None, None]
        y = ((y - mean) / (var + 1e-5).sqrt()).clamp(min=0)
    half = patch // 2
    tiles = y.unfold(2, half, half).unfold(3, half, half)
    y = torch.einsum("bchwij,dcij->bhwd", tiles, embed.proj.weight) + embed.proj.bias
    torch.testing.assert_close(embed(x), y.flatten(1, 2))


def fitted(size):
    """Return a network of one block with running statistics of pictures of this size."""
    torch.manual_seed(0)
    net = create_model("deepvit", **{**SMALL, "img_size": size, "depth": 1, "re_attention": 1})
    torch.optim.swa_utils.update_bn([pictures(4, size, size)], net)
    return net.eval()


def test_other_sizes_keep_a_network_right_in_all_three_ways(tmp_path, caplog):
    """The truth is the same network with the statistics of the new size's batch."""
    net = fitted(56)  # 50 tokens
    state = copy.deepcopy(net.state_dict())
    torch.save(state, tmp_path / "net.pth")
    kw = {**SMALL, "depth": 1, "re_attention": 1, "checkpoint_path": tmp_path / "net.pth"}
    with caplog.at_level(logging.WARNING, "foveal"):
        built = create_model("deepvit", **{**kw, "img_size": 96}).eval()  # 145 tokens
    assert "position embeddings are resampled from 50 to 145 tokens" in caplog.text
    dynamic = create_model("deepvit", **{**kw, "img_size": 56}, dynamic_img_size=True).eval()
    net.set_input_size((96, 96))
    x = pictures(4, 96, 96)
    with torch.no_grad():
        y = net(x)
        for other in (built, dynamic):
            torch.testing.assert_close(other(x), y)
        truth = copy.deepcopy(net).train()(x)
        unmoved = copy.deepcopy(net)
        unmoved.blocks[0].attn.tokens.fill_(145)  # as the authors' code, which knows no tokens
        norm = truth.norm()
        assert (y - truth).norm() < 0.05 * norm
        assert (unmoved(x) - truth).norm() > 5 * (y - truth).norm()


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_without_running_statistics_any_size_is_right(norm):
    net = small(norm=norm, dynamic_img_size=True).eval()
    assert not any(key.endswith("tokens") for key in net.state_dict())
    assert net(pictures(1, 48, 16)).isfinite().all()


def test_position_embeddings_that_cannot_be_resampled_are_refused(tmp_path):
    torch.save(small(embed_dim=48).state_dict(), tmp_path / "wider.pth")
    with pytest.raises(ValueError, match=r"shapes: cls_token \[1, 1, 48\] where"):
        small(img_size=64, checkpoint_path=tmp_path / "wider.pth")
    torch.save(small(img_size=(16, 32)).state_dict(), tmp_path / "oblong.pth")
    with pytest.raises(ValueError, match=r"shapes: pos_embed \[1, 9, 24\] where"):
        small(img_size=64, checkpoint_path=tmp_path / "oblong.pth")


def test_weights_of_ones_own_network_load_as_pretrained_at_another_size():
    state = small(stem="conv").state_dict()
    kw = {**SMALL, "img_size": 64, "stem": "conv"}
    overlay = {"state_dict": dict(state), "num_classes": 5}
    net = create_model("deepvit", True, pretrained_cfg_overlay=overlay, **kw)
    assert net.pos_embed.shape == (1, 65, 24)
    ours = net.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in state.items() if k != "pos_embed")


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize(
    ("kw", "size", "message"),
    [
        ({}, (40, 32), "a picture of height 40 is given and the network is for 32: call its set_i"),
        ({}, (32, 40), "a picture of width 40 is given"),
        ({"dynamic_img_size": True}, (33, 32), r"height must be a multiple of .* 8, as 32 is, not"),
        ({"dynamic_img_size": True}, (32, 1), r"width must be a multiple of .* 8, as 8 is, not 1"),
    ],
)
def test_pictures_of_a_wrong_size_are_told_the_nearest(stem, kw, size, message):
    net = small(stem=stem, **kw).eval()
    with pytest.raises(ValueError, match=message):
        net(pictures(1, *size))
    with pytest.raises(ValueError, match=r"the nearest size that it can take is 32$"):
        check_input_size(net, 30)
    net(pictures(0))  # an empty batch is one


def test_the_size_can_be_set_to_whole_patches_alone():
    net = small(stem="conv")
    with pytest.raises(ValueError, match="multiple of the patch size 8, as 64 is, not 65"):
        net.set_input_size((65, 64))
    with pytest.raises(ValueError, match="patch_size of the convolutional stem stays"):
        net.set_input_size(patch_size=(4, 4))
    net = small(dynamic_img_size=True, dynamic_img_pad=True, stem="conv").eval()
    assert net(pictures(1, 33, 31)).shape == (1, 5)


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_features_are_maps_of_blocks(stem):
    whole = small(stem=stem, dynamic_img_size=True).eval()
    x = pictures(2, 32, 48)
    with torch.no_grad():
        last, expected = whole.forward_intermediates(x)
        torch.testing.assert_close(whole.forward_head(last), whole(x))
        for indices, chosen in ((None, [1, 2, 3]), ((0, -1), [0, 3]), (2, [2, 3]), ((1,), [1])):
            kw = {} if indices is None else {"out_indices": indices}
            net = small(stem=stem, dynamic_img_size=True, features_only=True, **kw).eval()
            assert net.feature_info.reduction() == [8] * len(chosen)
            assert net.feature_info.channels() == [24] * len(chosen)
            maps = net(x)
            assert [m.shape for m in maps] == [(2, 24, 4, 6)] * len(chosen)
            for index, found in zip(chosen, maps, strict=True):
                torch.testing.assert_close(found, expected[index])


def test_fewer_blocks_than_the_usual_maps():
    assert small(depth=2).eval()(pictures()).shape == (2, 5)
    assert len(small(depth=2, features_only=True)(pictures())) == 2
    with pytest.raises(ValueError, match="out_indices must be a number of levels up to 2"):
        small(depth=2, features_only=True, out_indices=(2,))


def test_gradient_checkpointing_and_save_memory_compute_the_same():
    x, results = pictures(), []
    for save_memory, checkpointing in ((False, False), (True, False), (False, True)):
        net = small(save_memory=save_memory)
        net.set_grad_checkpointing(checkpointing)
        y = net(x)
        y.square().sum().backward()
        results.append([y.detach(), *[p.grad for p in net.parameters()]])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b)


def test_timms_arguments_are_its():
    net = small(drop_path_rate=0.3, drop_rate=0.1, in_chans=1, global_pool="avg", reg_tokens=2)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in net.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    assert net(torch.rand(2, 1, 32, 32)).shape == (2, 5)
    assert net.default_cfg["input_size"] == (1, 32, 32)
    net.reset_classifier(0)
    assert net.eval()(torch.rand(2, 1, 32, 32)).shape == (2, 24)
    groups = timm.models.group_parameters(net, net.group_matcher(), reverse=True)
    assert len(groups) == sum(1 for _ in net.parameters())


def test_the_usual_factor_can_be_another_in_every_block():
    usual, other = small().eval(), small(qk_scale=(24 / 3) ** -0.5).eval()
    with torch.no_grad():
        torch.testing.assert_close(usual(pictures()), other(pictures()))
    net = small(qk_scale=0.7, transform_scale=True)
    assert [block.attn.scale for block in net.blocks] == [0.7] * 4
    assert [layer.reatten_scale for layer in layers(net)] == [0.7] * 2
    maps = net.blocks[0].attn
    x = torch.randn(2, 5, 24)
    q, k, v = maps.qkv(x).view(2, 5, 3, 3, 8).permute(2, 0, 3, 1, 4)
    expected = (0.7 * q @ k.mT).softmax(-1) @ v
    torch.testing.assert_close(maps(x), maps.proj(expected.transpose(1, 2).flatten(2)))


def test_which_blocks_mix_can_be_any():
    for given, expected in ((None, [0, 1, 2, 3]), (0, []), (3, [1, 2, 3]), ([0, 2], [0, 2])):
        net = meta("deepvit", **{**SMALL, "re_attention": given})
        assert [i for i, block in enumerate(net.blocks) if layers(block)] == expected


def test_exports_with_any_batch_and_size():
    net = small(stem="conv", dynamic_img_size=True, depth=1, re_attention=1).eval()
    shapes = {"x": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)}
    exported = torch.export.export(net, (pictures(),), dynamic_shapes=shapes, strict=False).module()
    x = pictures(3, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"re_attention": 5}, "re_attention must lie between 0 and the depth 4, not 5"),
        ({"re_attention": [4]}, "re_attention names block 4, and there are blocks 0 to 3"),
        ({"depth": 0}, "depth must be at least 1, not 0"),
        ({"embed_dim": 25}, "dim must be a multiple of num_heads=3, as 24 and 27 are, not 25"),
        ({"img_size": 33}, "height must be a multiple of the patch size 8, as 32 is, not 33"),
        ({"stem": "conv", "patch_size": 3}, "needs an even patch_size, as 2 and 4 are, not 3"),
        ({"stem": "cnn"}, "unknown stem 'cnn': did you mean 'conv'"),
        ({"adjustment": 0}, "adjustment must be more than 0, not 0"),
        ({"norm": "group"}, "norm must be 'batch', 'layer' or 'none', not 'group'"),
        ({"theta_init": "zero"}, "theta_init must be 'conv' or 'identity', not 'zero'"),
        ({"pretrained": True}, "there are no published weights for 'deepvit': leave pretrained ou"),
    ],
)
def test_impossible_values_are_refused(kw, message):
    with pytest.raises(ValueError, match=message):
        meta("deepvit", **{**SMALL, **({"img_size": 33} if kw.get("patch_size") else {}), **kw})


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"re_attention": 1.5}, "re_attention must be a whole number, not 1.5"),
        ({"depth": 2.0}, "depth must be a whole number, not 2.0"),
        ({"stem_stride": 1}, "unknown deepvit argument 'stem_stride': did you mean 'stem'"),
        ({"adjustmnt": 1}, "did you mean 'adjustment'"),
    ],
)
def test_arguments_of_a_wrong_kind_are_refused(kw, message):
    with pytest.raises(TypeError, match=message):
        meta("deepvit", **{**SMALL, **kw})
