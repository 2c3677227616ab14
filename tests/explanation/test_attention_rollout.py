import pytest
import torch
from torch import nn

import foveal
from foveal.explanation import explain, last_attention, rollout
from foveal.layers.attention_maps import reading_attention_maps


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return foveal.create_model("test_vit", num_classes=3, dynamic_img_size=True, reg_tokens=2)


def maps_of(network, x):
    """Return the maps of all layers by timm's own arithmetic, float64, [L, B, H, N, N]."""
    found = []

    def keep(module, args):
        x = args[0].double()
        batch, tokens, _ = x.shape
        qkv = x @ module.qkv.weight.double().T + module.qkv.bias.double()
        q, k, _ = qkv.view(batch, tokens, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
        found.append((q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(3))

    handles = [block.attn.register_forward_pre_hook(keep) for block in network.blocks]
    with torch.no_grad():
        network.eval()(x)
    for handle in handles:
        handle.remove()
    return torch.stack(found)


FUSED = {"mean": lambda a: a.mean(1), "min": lambda a: a.amin(1), "max": lambda a: a.amax(1)}


@pytest.mark.parametrize("heads", ["mean", "min", "max"])
def test_attention_is_the_class_tokens_row_of_the_last_layer(vit, heads):
    x = torch.randn(2, 3, 64, 96)
    expected = FUSED[heads](maps_of(vit, x)[-1])[:, 0, 3:].view(2, 4, 6)
    found = last_attention(vit, x, heads=heads)
    for one, wanted in zip(found, expected, strict=True):
        assert (one.method, one.layer) == ("attention", f"blocks.{len(vit.blocks) - 1}.attn")
        assert one.target is one.score is None
        assert one.map.shape == (64, 96)
        torch.testing.assert_close(one.raw.double(), wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("heads", ["mean", "min", "max"])
def test_rollout_is_the_product_over_layers(vit, heads):
    x = torch.randn(2, 3, 64, 96)
    product = torch.eye(3 + 4 * 6, dtype=torch.float64).repeat(2, 1, 1)
    for maps in maps_of(vit, x):
        layer = 0.5 * FUSED[heads](maps) + 0.5 * torch.eye(27, dtype=torch.float64)
        product = layer / layer.sum(2, keepdim=True) @ product
    found = rollout(vit, x, heads=heads)
    for b in range(2):
        expected = product[b, 0, 3:].view(4, 6)
        torch.testing.assert_close(found[b].raw.double(), expected, rtol=1e-4, atol=1e-7)
    with torch.autocast("cpu", torch.bfloat16):
        assert rollout(vit, x, heads=heads)[0].raw.dtype == torch.float32


def test_without_a_class_token_it_is_the_mean_over_queries():
    torch.manual_seed(0)
    vit = foveal.create_model("test_vit", num_classes=3, class_token=False, global_pool="avg")
    x = torch.randn(1, 3, 160, 160)
    expected = maps_of(vit, x)[-1].mean(1)[0].mean(0).view(10, 10)
    (found,) = last_attention(vit, x)
    torch.testing.assert_close(found.raw.double(), expected, rtol=1e-4, atol=1e-7)
    # With one that the classifier does not read, too.
    vit = foveal.create_model("test_vit", num_classes=3, global_pool="avg")
    expected = maps_of(vit, x)[-1].mean(1)[0, 1:, 1:].mean(0).view(10, 10)
    for network in (vit, nn.Sequential(nn.Identity(), vit)):
        (found,) = last_attention(network, x)
        torch.testing.assert_close(found.raw.double(), expected, rtol=1e-4, atol=1e-7)


def test_deepvits_mixed_maps_are_read():
    torch.manual_seed(0)
    network = foveal.create_model("deepvit", num_classes=3, img_size=48, depth=2, embed_dim=24)
    x = torch.randn(2, 3, 48, 48)
    maps = []
    with torch.no_grad(), reading_attention_maps(network.eval(), lambda _, a: maps.append(a)):
        network(x)
    product = torch.eye(10).repeat(2, 1, 1)
    for one in maps:
        layer = one.mean(1).clamp(min=0) + torch.eye(10)
        product = layer / layer.sum(2, keepdim=True) @ product
    for b, found in enumerate(rollout(network, x)):
        torch.testing.assert_close(found.raw, product[b, 0, 1:].view(3, 3))


def test_the_network_is_left_as_it_was(vit):
    vit.train()
    x = torch.randn(1, 3, 64, 64)
    for method in ("attention", "rollout"):
        explain(vit, x, method)
        assert all(module.training for module in vit.modules())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in vit.modules())
        with pytest.raises(AssertionError):
            explain(vit, torch.randn(1, 3, 65, 64), method)
        assert all(module.training for module in vit.modules())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in vit.modules())


def test_wrong_input_is_told_in_one_sentence(vit):
    x = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="rollout is the same for all classes"):
        explain(vit, x, "rollout", 2)
    with pytest.raises(ValueError, match="must be one of mean, min, max"):
        rollout(vit, x, heads="product")
    with pytest.raises(ValueError, match="no attention whose maps can be read"):
        last_attention(foveal.create_model("test_resnet"), x)

    class NoPatches(torch.nn.Module):
        def __init__(self, attention):
            super().__init__()
            self.attn = attention

        def forward(self, x):
            return self.attn(x.mean(1).expand(-1, -1, 64)).mean(1)

    with pytest.raises(ValueError, match="the 64 tokens of 'attn' in NoPatches are not those of"):
        last_attention(NoPatches(vit.blocks[0].attn), torch.randn(1, 3, 64, 64))
