"""The attention maps of a vision transformer at work, foveal's or timm's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.attention import Attention, AttentionRope, resolve_self_attn_mask
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from torch import nn

_TIMMS = (Attention, AttentionRope, EvaAttention, BeitAttention)
_READABLE = (
    "timm's Attention, AttentionRope, EvaAttention and that of its BEiT, and modules with a method "
    "attention_maps(x)"
)


def has_attention_maps(module: nn.Module) -> bool:
    """Return whether :func:`attention_maps` can read a module."""
    return isinstance(module, _TIMMS) or callable(getattr(module, "attention_maps", None))


def attention_maps(
    attention: nn.Module,
    x: torch.Tensor,
    *,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    rope: torch.Tensor | None = None,
    shared_rel_pos_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the maps that multiply V for an input of an attention module, a row for each query.

    Args:
        attention: timm's ``Attention``, ``AttentionRope``, ``EvaAttention`` or the attention of its
            BEiT, fused or not; or a module with a method ``attention_maps(x)``, such as
            :class:`foveal.layers.ReAttention`.
        x: tokens as the module gets them, [B, N, C].
        attn_mask: what else timm's modules get, as they get it: a mask of the N x N entries, True
            where a query may look or added to the logits,
        is_causal: no query may look at later tokens,
        rope: the rotary position embedding,
        shared_rel_pos_bias: BEiT's bias on the logits. A method ``attention_maps`` gets none of it.

    Returns:
        [B, H, N, N], with gradient; of softmax maps without their dropout, in float32 at least.

    Raises:
        TypeError: a module of another kind.

    Example:
        >>> attention_maps(Attention(16, num_heads=4), torch.rand(2, 5, 16)).sum(3).shape
        torch.Size([2, 4, 5])
    """
    own: Callable[[torch.Tensor], torch.Tensor] | None = getattr(attention, "attention_maps", None)
    if callable(own):
        return own(x)
    if not isinstance(attention, _TIMMS):
        raise TypeError(
            f"the attention maps of {_kind(attention)} cannot be read: only those of {_READABLE}"
        )
    timms: Any = attention
    q, k = _queries_and_keys(timms, x)
    if rope is not None:
        first, half = timms.num_prefix_tokens, timms.rotate_half
        q, k = (
            torch.cat([t[:, :, :first], apply_rot_embed_cat(t[:, :, first:], rope, half=half)], 2)
            for t in (q, k)
        )
    logits = (q * timms.scale) @ k.type_as(q).transpose(2, 3)
    bias = resolve_self_attn_mask(x.shape[1], logits, attn_mask, is_causal)
    own_bias = None
    if getattr(timms, "relative_position_bias_table", None) is not None:
        own_bias = timms._get_rel_pos_bias()
    for added in (bias, own_bias, shared_rel_pos_bias):
        if added is not None:
            logits = logits + added
    maps: torch.Tensor = logits.softmax(3, dtype=torch.promote_types(logits.dtype, torch.float32))
    return maps


def _queries_and_keys(attention: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return queries and keys of one of timm's attentions, [B, H, N, d] each."""

    def heads(tokens: torch.Tensor, number: int) -> torch.Tensor:
        return tokens.view(*tokens.shape[:2], number, tokens.shape[2] // number).transpose(1, 2)

    number = attention.num_heads
    if attention.qkv is None:
        groups = getattr(attention, "num_kv_groups", 1)
        q, k = heads(attention.q_proj(x), number), heads(attention.k_proj(x), number // groups)
    else:
        groups, qkv = 1, attention.qkv(x)
        if getattr(attention, "q_bias", None) is not None:
            qkv = qkv + torch.cat((attention.q_bias, attention.k_bias, attention.v_bias))
        q, k, _ = (heads(part, number) for part in qkv.chunk(3, 2))
    if not isinstance(attention, BeitAttention):
        q, k = attention.q_norm(q), attention.k_norm(k)
    # Several heads of queries may share one of keys.
    return q, k.repeat_interleave(groups, dim=1) if groups > 1 else k


def _kind(module: nn.Module) -> str:
    return type(module).__name__


@contextmanager
def reading_attention_maps(
    model: nn.Module, read: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """Call ``read(name, maps [B, H, N, N])`` whenever an attention module of the network runs.

    The maps are computed beside what the network computes, with gradient where that is on; nothing
    in it changes. Its compiled form would run without this: see ``torch.compiler.set_stance``.

    Raises:
        ValueError: the network has no attention whose maps can be read, or it is to be trained with
            gradient checkpointing, which runs blocks again when nothing reads them.
    """
    if torch.is_grad_enabled() and any(
        getattr(module, "grad_checkpointing", False) for module in model.modules()
    ):
        raise ValueError(
            "attention maps cannot be read in training with gradient checkpointing: call the "
            "network's set_grad_checkpointing(False)"
        )

    def hook(name: str) -> Any:
        return lambda module, args, given: read(name, attention_maps(module, *args, **given))

    handles = [
        module.register_forward_pre_hook(hook(name), with_kwargs=True)
        for name, module in model.named_modules()
        if has_attention_maps(module)
    ]
    if not handles:
        kinds = sorted({k for k in map(_kind, model.modules()) if "Attention" in k or "Attn" in k})
        has = f"those of its {', '.join(kinds)} cannot" if kinds else "it has none"
        raise ValueError(
            f"{type(model).__name__} has no attention whose maps can be read ({has}): only those "
            f"of {_READABLE} are"
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
