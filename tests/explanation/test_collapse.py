import copy
import math
import weakref

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import foveal
from foveal.explanation import attention_collapse

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
THRESHOLD = 0.8


def drawn(network, scale=0.6):
    """Return a network whose layers differ, its attention unfused."""
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(0.0, scale)
    for block in network.blocks:
        block.attn.fused_attn = False
    return network.eval()


def seen(network, x):
    """Return maps as timm has them on the way to V, and tokens after blocks, float64 arrays."""
    maps, tokens, handles = [], [], []
    for block in network.blocks:
        handles += [
            block.attn.attn_drop.register_forward_hook(lambda m, args, y: maps.append(args[0])),
            block.register_forward_hook(lambda m, args, y: tokens.append(y)),
        ]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return [m.double().numpy() for m in maps], [t.double().numpy() for t in tokens]


def cosine(a, b):
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def by_loops(maps, tokens, first):
    """Return all measures, each written out as a loop."""
    depth, (pictures, heads, number, _) = len(maps), maps[0].shape
    similarity, share, features = (np.zeros((depth, depth)) for _ in range(3))
    rank, diversity = np.zeros(depth), np.zeros(depth)
    for p in range(depth):
        for q in range(depth):
            found = [
                cosine(maps[p][b, h, :, t], maps[q][b, h, :, t])
                for b in range(pictures)
                for h in range(heads)
                for t in range(number)
            ]
            similarity[p, q] = np.mean(found)
            share[p, q] = np.mean([value > THRESHOLD for value in found])
            features[p, q] = np.mean(
                [
                    cosine(tokens[p][b, t], tokens[q][b, t])
                    for b in range(pictures)
                    for t in range(first, number)
                ]
            )
        ranks = []
        for b in range(pictures):
            x = tokens[p][b, first:]
            singular = np.sqrt(np.linalg.eigvalsh(x @ x.T).clip(0))
            parts = singular / singular.sum()
            ranks.append(math.exp(-sum(part * math.log(part) for part in parts if part > 0)))
        others = [
            cosine(maps[p][b, h].ravel(), maps[p][b, g].ravel())
            for b in range(pictures)
            for h in range(heads)
            for g in range(heads)
            if g != h
        ]
        rank[p], diversity[p] = np.mean(ranks), 1 - np.mean(others)
    return {
        "attention_similarity": similarity,
        "similar_share": share,
        "feature_similarity": features,
        "effective_rank": rank,
        "head_diversity": diversity,
    }


def assert_same(found, expected, names=None):
    for name in names or expected:
        values = getattr(found, name).double().numpy()
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=2e-5, err_msg=name)


PREFIXES = {
    "class token": ({}, 1),
    "registers": ({"reg_tokens": 2}, 3),
    "patches alone": ({"class_token": False, "global_pool": "avg"}, 0),
}


@pytest.mark.parametrize("kind", PREFIXES)
def test_measures_are_those_of_loops(kind):
    torch.manual_seed(0)
    args, first = PREFIXES[kind]
    network, x = drawn(VisionTransformer(**SMALL, **args)), torch.randn(5, 3, 16, 16)
    maps, tokens = seen(network, x)
    expected = by_loops(maps, tokens, first)
    assert expected["attention_similarity"][0, 1] < 0.95  # the layers do differ
    shares = expected["similar_share"].diagonal(-1)
    assert ((shares > 0) & (shares < 1)).any()
    found = attention_collapse(network, [x[:4], x[4:]], threshold=THRESHOLD)
    assert_same(found, expected)
    assert found.layers == ("blocks.0.attn", "blocks.1.attn", "blocks.2.attn")
    assert found.pictures == 5
    whole = attention_collapse(network, [x], threshold=THRESHOLD, class_token=True)
    assert_same(whole, by_loops(maps, tokens, 0))


def test_results_do_not_depend_on_batches_nor_on_what_runs_at_once():
    torch.manual_seed(0)
    network, x = drawn(VisionTransformer(**SMALL)), torch.randn(7, 3, 16, 16)
    whole = attention_collapse(network, [x], threshold=THRESHOLD, at_once=7)
    expected = {
        name: getattr(whole, name).double().numpy()
        for name in (
            "attention_similarity",
            "similar_share",
            "feature_similarity",
            "effective_rank",
            "head_diversity",
        )
    }
    for batches, at_once in ((x.split(1), 4), (x.split(3), 2), ([x[:0], x[:6], x[6:]], 5)):
        found = attention_collapse(network, batches, threshold=THRESHOLD, at_once=at_once)
        assert_same(found, expected)
        assert found.pictures == 7


def test_fused_attention_gives_the_same():
    torch.manual_seed(0)
    network, x = drawn(VisionTransformer(**SMALL)), torch.randn(3, 3, 16, 16)
    expected = by_loops(*seen(network, x), 1)
    for block in network.blocks:
        block.attn.fused_attn = True
    assert_same(attention_collapse(network, [x], threshold=THRESHOLD), expected)


def test_blocks_that_do_nothing_are_wholly_alike():
    torch.manual_seed(0)
    network = drawn(VisionTransformer(**SMALL))
    for block in network.blocks:
        block.load_state_dict(network.blocks[0].state_dict())
        for last in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    found = attention_collapse(network, [torch.randn(2, 3, 16, 16)])
    ones = torch.ones(3, 3)
    torch.testing.assert_close(found.attention_similarity, ones)
    torch.testing.assert_close(found.feature_similarity, ones)
    assert torch.equal(found.similar_share, ones)
    assert found.similar_blocks == 2
    torch.testing.assert_close(found.with_previous, torch.ones(2))


def test_similar_blocks_are_those_above_the_cut():
    torch.manual_seed(0)
    network, x = drawn(VisionTransformer(**SMALL)), torch.randn(3, 3, 16, 16)
    shares = attention_collapse(network, [x], threshold=THRESHOLD).similar_share.diagonal(-1)
    low, high = sorted(shares.tolist())
    assert low < high
    for cut, number in ((low / 2, 2), ((low + high) / 2, 1), (high, 0)):
        assert attention_collapse(network, [x], threshold=THRESHOLD, cut=cut).similar_blocks == (
            number
        )


def test_a_window_leaves_the_others_out():
    torch.manual_seed(0)
    network, x = drawn(VisionTransformer(**{**SMALL, "depth": 4})), torch.randn(3, 3, 16, 16)
    expected = by_loops(*seen(network, x), 1)
    far = np.abs(np.subtract.outer(np.arange(4), np.arange(4))) > 2
    for name in ("attention_similarity", "similar_share", "feature_similarity"):
        expected[name][far] = np.nan
    assert_same(attention_collapse(network, [x], threshold=THRESHOLD, window=2), expected)


@pytest.mark.parametrize(("window", "alive"), [(1, 3), (3, 5), (None, 8)])
def test_no_more_maps_are_kept_than_the_window_needs(window, alive, monkeypatch):
    network = VisionTransformer(**{**SMALL, "depth": 8})
    kept, most = weakref.WeakSet(), []
    normalize = torch.nn.functional.normalize

    def counting(x, **options):
        result = normalize(x, **options)
        if x.ndim == 4:
            assert len(x) <= 2
            kept.add(result)
            most.append(len(kept))
        return result

    monkeypatch.setattr(torch.nn.functional, "normalize", counting)
    attention_collapse(network, [torch.randn(6, 3, 16, 16)] * 2, window=window, at_once=2)
    assert len(most) == 2 * 3 * 8
    assert max(most) == alive  # of a window, itself, and the one that makes room
    assert not kept


class Shown(nn.Module):
    """A network that has pictures for tokens, and one block that returns them as they are."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = timm.layers.Attention(8, num_heads=1)

        def forward(self, x):
            self.attn(x)
            return x

    def __init__(self):
        super().__init__()
        self.block = self.Block()

    def forward(self, x):
        return self.block(x[:, 0])


@pytest.mark.parametrize(
    ("tokens", "rank"),
    [
        (torch.outer(torch.arange(1.0, 6), torch.arange(8.0)), 1),
        (torch.eye(5, 8), 5),
        (torch.diag(torch.tensor([2.0, 1, 1, 0, 0]))[:, [0, 1, 2, 3, 4, 4, 4, 4]], 2 * 2**0.5),
        (torch.zeros(5, 8), math.nan),
        (torch.full((5, 8), math.inf), math.nan),
    ],
    ids=["one line", "orthogonal", "a half and two quarters", "zeros", "not finite"],
)
def test_effective_rank_of_known_tokens(tokens, rank):
    found = attention_collapse(Shown(), [tokens[None, None]])
    assert found.effective_rank.tolist() == pytest.approx([rank], abs=1e-3, nan_ok=True)
    assert found.head_diversity.isnan().all()  # one head


def test_layers_of_other_shapes_are_not_compared():
    torch.manual_seed(0)
    network = VisionTransformer(**SMALL)
    network.blocks[1].attn = timm.layers.Attention(24, num_heads=2)
    found = attention_collapse(network, [torch.randn(2, 3, 16, 16)])
    missing = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).bool()
    assert torch.equal(found.attention_similarity.isnan(), missing)
    assert torch.equal(found.similar_share.isnan(), missing)
    assert found.feature_similarity.isfinite().all()
    assert found.similar_blocks == 0


def test_what_is_not_finite_is_missing():
    torch.manual_seed(0)
    network = VisionTransformer(**SMALL)
    nn.init.constant_(network.blocks[1].mlp.fc2.bias, math.nan)
    found = attention_collapse(network, [torch.randn(2, 3, 16, 16)])
    missing = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 1, 1]]).bool()
    assert torch.equal(found.attention_similarity.isnan(), missing)
    assert torch.equal(found.similar_share.isnan(), missing)
    assert found.effective_rank.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize(
    "name", ["mobilevit_xxs", "crossvit_tiny_240", "csatv2", "pit_ti_224", "eva02_tiny_patch14_224"]
)
def test_networks_of_many_kinds_are_measured(name):
    torch.manual_seed(0)
    side = {"mobilevit_xxs": 64, "csatv2": 64}.get(name)
    network = timm.create_model(name)
    side = side or network.default_cfg["input_size"][-1]
    found = attention_collapse(network, [torch.randn(1, 3, side, side)])
    one = found.attention_similarity.diagonal()
    torch.testing.assert_close(one, torch.ones_like(one))
    assert found.feature_similarity.nan_to_num(0).abs().max() <= 1 + 1e-6
    # MobileViT's tokens come as four times as many pictures, csatv2's blocks return no tokens.
    assert found.feature_similarity.diagonal().isnan().any() == (name == "csatv2")


def test_re_attention_is_read():
    torch.manual_seed(0)
    network = foveal.create_model(
        "deepvit", img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=4
    ).eval()
    x = torch.randn(3, 3, 16, 16)
    inputs = []
    for block in network.blocks:
        block.attn.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        network(x)
        first, second = (
            block.attn.attention_maps(tokens).double()
            for block, tokens in zip(network.blocks, inputs, strict=True)
        )
    expected = torch.nn.functional.cosine_similarity(first, second, dim=2).mean().item()
    found = attention_collapse(network, [x])
    assert found.attention_similarity[0, 1].item() == pytest.approx(expected, abs=1e-5)


def test_branches_side_by_side_are_measured_after_their_block():
    torch.manual_seed(0)
    kind = timm.models.vision_transformer.ParallelThingsBlock
    network, x = VisionTransformer(**SMALL, block_fn=kind).eval(), torch.randn(2, 3, 16, 16)
    outputs = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, args, y: outputs.append(y.double()))
    with torch.no_grad():
        network(x)
    expected = torch.nn.functional.cosine_similarity(outputs[0], outputs[2], dim=2)[:, 1:].mean()
    outputs.clear()
    found = attention_collapse(network, [x])
    assert len(found.layers) == 6
    assert found.feature_similarity[0, 5].item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_network_is_as_it_was():
    torch.manual_seed(0)
    network = VisionTransformer(**SMALL, proj_drop_rate=0.5)
    network.blocks[1].eval()
    modes = [module.training for module in network.modules()]
    before = copy.deepcopy(network.state_dict())
    x = torch.randn(2, 3, 16, 16)
    found = [attention_collapse(network, [x]) for _ in range(2)]
    assert torch.equal(found[0].feature_similarity, found[1].feature_similarity)  # no dropout
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with pytest.raises(AssertionError, match="Input height"):
        attention_collapse(network, [torch.randn(2, 3, 9, 9)])
    assert [module.training for module in network.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_autocast_does_not_round_the_measures():
    torch.manual_seed(0)
    network, x = drawn(VisionTransformer(**SMALL), 0.05), torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention_collapse(network, [x])
    torch.testing.assert_close(found.attention_similarity.diagonal(), torch.ones(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be at least 1 layer or None, not 0"),
        ({"threshold": 1.5}, r"threshold must lie in \[-1, 1\], not 1.5"),
        ({"cut": -0.1}, r"cut must lie in \[0, 1\], not -0.1"),
        ({"at_once": 0}, "at_once must be at least 1 picture, not 0"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        attention_collapse(VisionTransformer(**SMALL), [torch.rand(1, 3, 16, 16)], **options)


def test_wrong_pictures_are_told():
    network, x = VisionTransformer(**SMALL), torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match="measured on pictures, and there are none"):
        attention_collapse(network, [])
    with pytest.raises(TypeError, match=r"not list: of pictures with labels, the pictures alone"):
        attention_collapse(network, [[x, torch.zeros(2)]])
    with pytest.raises(ValueError, match=r"not of shape \[3, 16, 16\]: one batch is given as a li"):
        attention_collapse(network, x)
    with pytest.raises(ValueError, match="ResNet has no attention whose maps can be read"):
        attention_collapse(timm.create_model("resnet10t"), [x])
