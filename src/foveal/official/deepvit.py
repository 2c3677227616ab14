"""Checkpoints of the authors' DeepViT (zhoudaquan/dvit_repo).

The keys are foveal's; only the number of tokens that the running means are for is not among them,
and is read from the position embedding. Width, depth, heads, which blocks have re-attention, the
embedding of patches and the size of pictures are read from keys and shapes. Two settings leave no
trace: the residual adjustment and the scale of re-attention. Those of the authors' networks are
known by their sizes; for others they are hints. Two more are the same in all of them: LayerNorm's
eps and the usual factor on Q K^T.
"""

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.layers.norm import LayerNorm
from torch import nn

from foveal.models.deepvit import deepvit
from foveal.official.renaming import check_keys, load_renamed

DESCRIPTION = "zhoudaquan/dvit_repo (DeepViT)"

State = Mapping[str, torch.Tensor]

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_MIXING = re.compile(r"blocks\.(\d+)\.attn\.reatten_matrix\.")
# (width, blocks, how many of the last re-attend, convolutional stem) of the authors' networks ->
# (adjustment, transform_scale).
_KNOWN = {
    **{(384, depth, depth, False): (1.0, False) for depth in (16, 24, 32)},
    (396, 16, 5, True): (0.5, True),
    (420, 32, 12, True): (0.5, False),
}


def recognise(state: State) -> bool:
    """Return whether the weights are a DeepViT's, complete or not.

    One without any re-attention and with a plain embedding is a vision transformer like any other,
    and is not taken for one of these.
    """
    own = any(".reatten_matrix." in key for key in state) or "patch_embed.conv1.weight" in state
    return "pos_embed" in state and own


def build(
    state: State,
    *,
    adjustment: float | None = None,
    transform_scale: bool | None = None,
    qk_scale: float | None = None,
    num_heads: int | None = None,
    img_size: tuple[int, int] | None = None,
    norm_eps: float = 1e-6,
) -> nn.Module:
    """Return the foveal network with the authors' weights.

    Args:
        state: the authors' state_dict.
        adjustment: their ``scale_adjustment``; not needed for the authors' own networks, which
            width, blocks and stem tell.
        transform_scale: theirs; likewise.
        qk_scale: theirs; None is (C / H) ** -0.5, which all published networks have.
        num_heads: heads of a network without re-attention; elsewhere it is read.
        img_size: (H, W) of the pictures, where they are not square.
        norm_eps: of all LayerNorms.

    Raises:
        ValueError: keys or shapes that are missing, too many or inconsistent; a setting that the
            weights do not tell and no hint gives; a hint that contradicts them.
    """
    mixing = sorted({int(match[1]) for key in state if (match := _MIXING.match(key))})
    structure: dict[str, Any] = {
        "depth": 1
        + max((int(match[1]) for key in state if (match := _BLOCK.match(key))), default=0),
        "re_attention": mixing,
        "stem": "conv" if any(key.startswith("patch_embed.conv1.") for key in state) else "patch",
        "qkv_bias": any(key.endswith(".attn.qkv.bias") for key in state),
        "norm_layer": partial(LayerNorm, eps=norm_eps),
        "num_classes": int(any(key.startswith("head.") for key in state)),
        "qk_scale": qk_scale,
    }
    counted = dict(state)
    tokens = state["pos_embed"].shape[1] if state["pos_embed"].ndim == 3 else 0
    for index in mixing:
        counted[f"blocks.{index}.attn.tokens"] = torch.tensor(tokens)
    with torch.device("meta"):
        template = deepvit(**structure)
    check_keys(template, counted, {}, "DeepViT")
    network = deepvit(
        **structure
        | _sizes(state, img_size)
        | {"num_heads": _heads(state, mixing, num_heads)}
        | _settings(state, mixing, structure["depth"], adjustment, transform_scale)
    )
    load_renamed(network, counted, {}, "DeepViT")
    return network


def _sizes(state: State, img_size: tuple[int, int] | None) -> dict[str, Any]:
    """Return what the shapes tell, once each has the dimensions that it should have."""
    _, places, width = state["pos_embed"].shape
    conv = state.get("patch_embed.conv1.weight")
    patch = state["patch_embed.proj.weight"].shape[2] * (1 if conv is None else 2)
    side = math.isqrt(places - 1)
    if img_size is None:
        if side * side != places - 1:
            raise ValueError(
                f"the checkpoint is for {places - 1} patches, which is no square: give the hint "
                "img_size=(H, W)"
            )
        img_size = (side * patch, side * patch)
    first = state["patch_embed.proj.weight"] if conv is None else conv
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    return {
        "img_size": img_size,
        "patch_size": patch,
        "embed_dim": width,
        "mlp_ratio": (hidden + 0.5) / width,  # it is rounded down
        "in_chans": first.shape[1],
        "num_classes": state["head.weight"].shape[0] if "head.weight" in state else 0,
    }


def _heads(state: State, mixing: list[int], hint: int | None) -> int:
    if not mixing:
        if hint is None:
            raise ValueError(
                "the weights of a DeepViT without re-attention do not tell its heads: give the "
                "hint num_heads (all of the authors' have 12)"
            )
        return hint
    heads: int = state[f"blocks.{mixing[0]}.attn.reatten_matrix.weight"].shape[0]
    if hint not in (None, heads):
        raise ValueError(f"the hint num_heads={hint} contradicts the weights, which have {heads}")
    return heads


def _settings(
    state: State,
    mixing: list[int],
    depth: int,
    adjustment: float | None,
    transform_scale: bool | None,
) -> dict[str, Any]:
    """Return what leaves no trace in the weights."""
    width, conv = state["cls_token"].shape[2], "patch_embed.conv1.weight" in state
    last = mixing == [*range(depth - len(mixing), depth)]
    known = _KNOWN.get((width, depth, len(mixing), conv)) if last else None
    if transform_scale is None and not mixing:
        transform_scale = False  # nothing to scale
    given = {"adjustment": adjustment, "transform_scale": transform_scale}
    for position, (name, value) in enumerate(given.items()):
        if value is None and known is None:
            raise ValueError(
                f"the weights of a DeepViT of width {width} and {depth} blocks, of which "
                f"{len(mixing)} re-attend, do not tell its {name}: give it as a hint (the authors' "
                "DeepViT-S has adjustment=0.5 and transform_scale=True, their DeepViT-L 0.5 and "
                "False, their plain embeddings 1 and False)"
            )
        if value is None:
            assert known is not None
            given[name] = known[position]
    return given
