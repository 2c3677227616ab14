"""The attention maps of a vision transformer at work, foveal's or timm's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.attention import Attention
from torch import nn


def has_attention_maps(module: nn.Module) -> bool:
    """Return whether :func:`attention_maps` can read a module."""
    return isinstance(module, Attention) or callable(getattr(module, "attention_maps", None))


def attention_maps(attention: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the maps that multiply V for an input of an attention module, a row for each query.

    Args:
        attention: timm's ``Attention``, fused or not, or a module with a method
            ``attention_maps(x)``, such as :class:`foveal.layers.ReAttention`.
        x: tokens as the module gets them, [B, N, C].

    Returns:
        [B, H, N, N], with gradient; of softmax maps without their dropout, in float32 at least.

    Raises:
        TypeError: a module of another kind.

    Example:
        >>> attention_maps(Attention(16, num_heads=4), torch.rand(2, 5, 16)).sum(3).shape
        torch.Size([2, 4, 5])
    """
    own: Callable[[torch.Tensor], torch.Tensor] | None = getattr(attention, "attention_maps", None)
    if own is not None:
        return own(x)
    if not isinstance(attention, Attention):
        raise TypeError(
            f"the attention maps of {type(attention).__name__} cannot be read: only those of "
            "timm's Attention and of modules with a method attention_maps(x)"
        )
    plain: Any = attention
    batch, tokens, _ = x.shape
    qkv = plain.qkv(x).reshape(batch, tokens, 3, plain.num_heads, plain.head_dim)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    logits = (plain.q_norm(q) * plain.scale) @ plain.k_norm(k).transpose(2, 3)
    maps: torch.Tensor = logits.softmax(3, dtype=torch.promote_types(logits.dtype, torch.float32))
    return maps


@contextmanager
def reading_attention_maps(
    model: nn.Module, read: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """Call ``read(name, maps [B, H, N, N])`` whenever an attention module of the network runs.

    The maps are computed beside what the network computes, with gradient where that is on; nothing
    in it changes. Its compiled form would run without this: see ``torch.compiler.set_stance``. It
    is not for gradient checkpointing, which runs blocks again when nothing reads them.

    Raises:
        ValueError: the network has no attention whose maps can be read.
    """

    def hook(name: str) -> Any:
        return lambda module, args: read(name, attention_maps(module, args[0]))

    handles = [
        module.register_forward_pre_hook(hook(name))
        for name, module in model.named_modules()
        if has_attention_maps(module)
    ]
    if not handles:
        raise ValueError(
            f"{type(model).__name__} has no attention whose maps can be read: timm's Attention, or "
            "modules with a method attention_maps(x)"
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
