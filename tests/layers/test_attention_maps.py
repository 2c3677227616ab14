"""Attention maps read from networks at work."""

import pytest
import timm
import torch
from timm.layers.attention import Attention
from torch import nn

from foveal.layers import ReAttention, attention_maps, has_attention_maps, reading_attention_maps


@pytest.mark.parametrize("fused", [True, False])
def test_timms_maps_are_those_by_which_it_acts(fused):
    torch.manual_seed(0)
    attention = Attention(12, num_heads=3, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm)
    attention.fused_attn = fused
    x = torch.randn(2, 7, 12)
    maps = attention_maps(attention, x)
    assert maps.shape == (2, 3, 7, 7)
    v = attention.qkv(x)[..., 24:].reshape(2, 7, 3, 4)
    acted = torch.einsum("bhqt,bthd->bqhd", maps, v).flatten(2)
    torch.testing.assert_close(attention.proj(acted), attention(x))


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


def test_errors():
    assert not has_attention_maps(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="the attention maps of Linear cannot be read: only those"):
        attention_maps(nn.Linear(2, 2), torch.rand(1, 3, 2))
    with (
        pytest.raises(ValueError, match="Sequential has no attention whose maps can be read"),
        reading_attention_maps(nn.Sequential(), print),
    ):
        pass
