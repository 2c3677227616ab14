"""Attention maps read from networks at work."""

import pytest
import timm
import torch
from timm.layers.attention import Attention, AttentionRope
from timm.models.beit import Beit
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from foveal.layers import ReAttention, attention_maps, has_attention_maps, reading_attention_maps

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
NETWORKS = {
    "plain": lambda: VisionTransformer(**SMALL),
    "query and key norms": lambda: VisionTransformer(**SMALL, qk_norm=True),
    "parallel branches": lambda: VisionTransformer(
        **SMALL, block_fn=timm.models.vision_transformer.ParallelThingsBlock
    ),
    "EVA": lambda: Eva(**SMALL, use_rot_pos_emb=True),
    "EVA, separate projections": lambda: Eva(**SMALL, use_rot_pos_emb=True, qkv_fused=False),
    "EVA, half rotation, registers": lambda: Eva(
        **SMALL, use_rot_pos_emb=True, rope_rotate_half=True, num_reg_tokens=2, qk_norm=True
    ),
    "rotary": lambda: Eva(**SMALL, use_rot_pos_emb=True, attn_type="rope"),
    "BEiT, a bias per layer": lambda: Beit(**SMALL, use_rel_pos_bias=True),
    "BEiT, a shared bias": lambda: Beit(**SMALL, use_shared_rel_pos_bias=True),
}


def drawn(network):
    """Return a network no parameter of which is zero or one."""
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(0.0, 0.5)
    return network.eval()


def what_dropout_gets(network, x):
    """Return the maps of each attention as timm itself has them on the way to V, unfused."""
    seen, handles = [], []
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
            handles.append(
                module.attn_drop.register_forward_hook(lambda m, args, y: seen.append(args[0]))
            )
    network(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_those_that_timm_multiplies_with_v(name, fused):
    torch.manual_seed(0)
    network, x = drawn(NETWORKS[name]()), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        truth = what_dropout_gets(network, x)
        for module in network.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused
        before, read = network(x), []
        with reading_attention_maps(network, lambda name, maps: read.append(maps)):
            assert torch.equal(network(x), before)
    assert len(read) == len(truth) >= 2
    assert len({tuple(maps[0, 0, 0].tolist()) for maps in truth}) == len(truth)
    for maps, expected in zip(read, truth, strict=True):
        torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Attention, AttentionRope, EvaAttention])
def test_a_mask_is_in_the_maps(kind):
    torch.manual_seed(0)
    attention = kind(16, num_heads=2, **({"scale_norm": False} if kind is EvaAttention else {}))
    x, mask = torch.randn(2, 5, 16), torch.rand(5, 5) > 0.4
    mask.fill_diagonal_(True)
    maps = attention_maps(attention, x, attn_mask=mask)
    assert (maps[:, :, ~mask] == 0).all()
    assert (maps[:, :, mask] > 0).all()
    below = attention_maps(attention, x, is_causal=True)
    assert torch.equal(below, below.tril())
    torch.testing.assert_close(below.sum(3), torch.ones(2, 2, 5))


def test_heads_of_queries_may_share_one_of_keys():
    torch.manual_seed(0)
    attention = AttentionRope(16, num_heads=4, num_kv_heads=2, qkv_fused=False)
    x = torch.randn(2, 5, 16)
    q = attention.q_proj(x).double().reshape(2, 5, 4, 4)
    k = attention.k_proj(x).double().reshape(2, 5, 2, 4)
    maps = attention_maps(attention, x)
    for head in range(4):
        logits = torch.einsum("bnd,bmd->bnm", q[:, :, head], k[:, :, head // 2]) / 2
        torch.testing.assert_close(maps[:, head].double(), logits.softmax(2), rtol=1e-5, atol=1e-6)


def test_half_precision_maps_are_float32():
    attention = Attention(16, num_heads=4).bfloat16()
    maps = attention_maps(attention, torch.randn(2, 5, 16).bfloat16())
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum(3), torch.ones(2, 4, 5))


def test_a_network_is_read_as_it_runs_and_does_what_it_did():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, num_classes=3, class_token=True)
    model.blocks[1].attn = ReAttention(64, 2)
    x = torch.randn(2, 3, 32, 32)
    plain = model(x)
    statistics = model.blocks[1].attn.var_norm.running_var.clone()
    with torch.no_grad():  # as before the first run
        model.blocks[1].attn.var_norm.reset_running_stats()
    found = {}
    with reading_attention_maps(model, found.__setitem__):
        read = model(x)
    torch.testing.assert_close(read, plain, rtol=0, atol=0)
    # The running statistics have moved once, not twice.
    assert torch.equal(model.blocks[1].attn.var_norm.running_var, statistics)
    assert model.blocks[1].attn.var_norm.num_batches_tracked == 1
    assert list(found) == [f"blocks.{i}.attn" for i in range(len(model.blocks))]
    assert all(m.shape == (2, 2, 5, 5) for m in found.values())
    sum(m.square().sum() for m in found.values()).backward()
    last = model.blocks[-1].attn
    grad = last.qkv.weight.grad
    assert grad[:128].any()
    assert not grad[128:].any()  # values have no part in the last maps
    assert last.proj.weight.grad is None
    model(x)
    assert len(found) == len(model.blocks)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_module_may_bring_its_own_maps():
    class Own(nn.Module):
        def attention_maps(self, x):
            return x[:, None]

    assert has_attention_maps(Own())
    x = torch.rand(1, 4, 4)
    assert torch.equal(attention_maps(Own(), x), x[:, None])


def test_what_cannot_be_read_is_told():
    assert not has_attention_maps(nn.Linear(3, 3))
    with pytest.raises(TypeError, match=r"maps of Linear cannot be read: only those of timm's Att"):
        attention_maps(nn.Linear(3, 3), torch.rand(1, 2, 3))
    with (
        pytest.raises(ValueError, match=r"^Sequential .* can be read \(it has none\): only"),
        reading_attention_maps(nn.Sequential(nn.ReLU()), print),
    ):
        pass
    swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), embed_dim=12)
    with (
        pytest.raises(ValueError, match=r"^SwinTransformer .*\(those of its WindowAttention cann"),
        reading_attention_maps(swin, print),
    ):
        pass
