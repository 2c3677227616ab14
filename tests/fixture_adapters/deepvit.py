"""Replays DeepViT: re-attention, blocks, the convolutional embedding, networks, the regulariser."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm
from torch import nn

from fixture_adapters.core import (
    LAYER,
    Adapter,
    Args,
    Comparison,
    Fixture,
    ModuleAdapter,
    Renamed,
    Tensors,
    Tolerance,
    check_arguments,
    compare,
    compare_gradients,
)
from foveal.layers import ReAttention, attention_maps
from foveal.losses import released_attention_similarity
from foveal.models.deepvit import DeepBlock
from foveal.models.patch_embed import ConvPatchEmbed
from foveal.official import deepvit as official_deepvit

_NAMES = {
    "multiplier": "input/grad_out",
    "input_gradient": "grad/x",
    "buffers": "buffer_train/",
}
NETWORK = Tolerance(
    "small networks: measured up to 2e-5",
    output=1e-4,
    output_train=1e-4,
    buffers=1e-4,
    gradients=1e-4,
)
EMBEDDING = Tolerance(
    "one input of a ReLU is within rounding of 0, so that right gradients differ by per cents",
    gradients_l2=0.05,
)
# What the authors' attention takes, and their defaults. Dropout is off in the stored passes.
_ATTENTION = {"num_heads": 8, "qk_scale": None, "transform_scale": False}


def _filled(module: nn.Module, state: Tensors, tokens: int) -> nn.Module:
    """Load the weights; the number of tokens is the input's, as the authors' code assumes."""
    counts = {key: torch.tensor(tokens) for key in module.state_dict() if key.endswith("tokens")}
    module.load_state_dict({**state, **counts})
    return module


def _mixes(args: Args, state: Tensors, prefix: str) -> bool:
    """Return whether an attention mixes its maps: its weights tell, and must not contradict."""
    mixes = f"{prefix}reatten_matrix.weight" in state
    check_arguments(args, {"apply_transform": mixes})
    return mixes


def _attention(tokens: int, args: Args, state: Tensors) -> Renamed:
    known = {name: args.get(name, default) for name, default in _ATTENTION.items()}
    layer = ReAttention(
        args["dim"],
        qkv_bias="qkv.bias" in state,
        apply_transform=_mixes(args, state, ""),
        **known,
    )
    return _filled(layer, state, tokens), {}


def _block(tokens: int, args: Args, state: Tensors) -> Renamed:
    re_atten = args.get("re_atten", "attn.reatten_matrix.weight" in state)
    mixes = _mixes(args if re_atten else {}, state, "attn.")
    block = DeepBlock(
        args["dim"],
        args["num_heads"],
        mlp_ratio=args.get("mlp_ratio", 4.0),
        qkv_bias="attn.qkv.bias" in state,
        norm_layer=partial(LayerNorm, eps=args.get("norm_eps", 1e-5)),
        # Plain attention of the authors' blocks ignores it.
        adjustment=args.get("scale_adjustment", 1.0) if re_atten else 1.0,
        re_attention={"transform_scale": args.get("transform_scale", False)},
        mixing=(0,) if mixes else (),
        qk_scale=args.get("qk_scale"),
    )
    return _filled(block, state, tokens), {}


def _embedding(args: Args, state: Tensors) -> Renamed:
    known = {"img_size": 224, "patch_size": 16, "in_chans": 3, "embed_dim": 768}
    embedding = ConvPatchEmbed(**{name: args.get(name, default) for name, default in known.items()})
    embedding.load_state_dict(state)
    return embedding, {}


def _network(args: Args, state: Tensors) -> Renamed:
    re_atten = args.get("re_atten", True)
    size = args.get("img_size", 224)
    network = official_deepvit.build(
        state,
        adjustment=args.get("scale_adjustment", 1.0) if re_atten else 1.0,
        transform_scale=args.get("transform_scale", False),
        qk_scale=args.get("qk_scale"),
        num_heads=args.get("num_heads", 12),
        img_size=tuple(size) if isinstance(size, list) else (size, size),
        norm_eps=args.get("norm_eps", 1e-5),
    )
    blocks: Any = network.get_submodule("blocks")
    read = {
        "apply_transform": [isinstance(block.attn, ReAttention) for block in blocks],
        "use_cnn_embed": "patch_embed.conv1.weight" in state,
        "patch_size": network.get_submodule("patch_embed").patch_size[0],  # type: ignore[index]
        "embed_dim": network.embed_dim,
        "num_classes": network.num_classes,
    }
    check_arguments(args if re_atten else {**args, "apply_transform": [False] * len(blocks)}, read)
    if len(args.get("depth", blocks)) != len(blocks):
        raise ValueError("the weights do not follow depth")
    return network, {}


def _with_maps(fixture: Fixture, build: Any, attention: str) -> Iterator[Comparison]:
    """Replay an attention or a block, and the maps that it multiplies V with in evaluation."""
    tokens = fixture.take("input/x").shape[1]
    yield from ModuleAdapter(partial(build, tokens), LAYER, **_NAMES)(fixture)
    if "output/attn" in fixture.tensors:
        module, _ = build(tokens, fixture.args, fixture.under("state/"))
        module.eval()
        seen: list[torch.Tensor] = []
        layer = module.get_submodule(attention)
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        with torch.no_grad():
            module(fixture.take("input/x"))
            maps = attention_maps(layer, seen[0])
        yield compare("output/attn", maps, fixture.take("output/attn"), LAYER.output)


def _re_attention(fixture: Fixture) -> Iterator[Comparison]:
    yield from _with_maps(fixture, _attention, "")


def _whole_block(fixture: Fixture) -> Iterator[Comparison]:
    yield from _with_maps(fixture, _block, "attn")


def _regulariser(fixture: Fixture) -> Iterator[Comparison]:
    """Replay the soft-target cross entropy with the released cosine similarity."""
    logits = fixture.take("input/logits").requires_grad_()
    maps = fixture.under("input/attn_")
    ordered = [maps[key].requires_grad_() for key in sorted(maps, key=int)]
    pairs = fixture.args.get("n_comn", 12)
    similarity = released_attention_similarity(ordered, pairs)
    loss = F.cross_entropy(logits, fixture.take("input/target")) + 0.1 * similarity
    stored = fixture.take("output/loss")  # [1]
    yield compare("output/loss", loss.detach().reshape(stored.shape), stored, LAYER.output)
    loss.backward()
    found = {"grad/logits": logits.grad}
    found |= {f"grad/attn_{i}": each.grad for i, each in enumerate(ordered)}
    names = [name for name in fixture.tensors if name.startswith("grad/")]
    yield from compare_gradients([(n, found.get(n), fixture.take(n)) for n in names], LAYER)
    for name, gradient in found.items():
        if name not in names and gradient is not None:
            yield Comparison(name, gradient.abs().max().item(), 0.0)


ADAPTERS: dict[str, Adapter] = {
    "ReAttention": _re_attention,
    "Block": _whole_block,
    "PatchEmbed_CNN": ModuleAdapter(_embedding, EMBEDDING, **_NAMES),
    "DeepVisionTransformer": ModuleAdapter(_network, NETWORK, **_NAMES),
    "SoftTargetCrossEntropyCosReg": _regulariser,
}
