"""DeepViT: vision transformers, up to 32 blocks and more, whose blocks have re-attention.

The networks are timm's ``VisionTransformer``, so that pictures of other sizes, feature maps,
gradient checkpointing, stochastic depth and all else are timm's. Only the attention, the residual
adjustment and the convolutional patch embedding differ.

Source: Zhou et al. 2021, arXiv:2103.11886, and the authors' code, whose keys these are.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from timm.layers.helpers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models import vision_transformer as timm_vit
from torch import nn

from foveal.layers import ReAttention
from foveal.layers.re_attention import Norm, ThetaInit
from foveal.models.levels import check_out_indices
from foveal.models.options import check_whole
from foveal.models.patch_embed import ConvPatchEmbed, SizedPatchEmbed, check_patches
from foveal.names import unknown

vit: Any = timm_vit  # annotated too sparsely for the type checker

Stem = Literal["patch", "conv"]


_FIRST_CONV = {"patch": "patch_embed.proj", "conv": "patch_embed.conv1"}


def _cfg(size: int = 224, stem: str = "patch") -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, size, size),
        "pool_size": None,
        "crop_pct": 0.9 if size == 224 else 1.0,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": _FIRST_CONV[stem],
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs(
    {
        "deepvit.untrained": _cfg(),
        **{
            f"deepvit_{depth}{kind}_patch16_224.untrained": _cfg()
            for depth in (16, 24, 32)
            for kind in ("", "_plain")
        },
        "deepvit_small_patch16_224.untrained": _cfg(stem="conv"),
        "deepvit_large_patch16_224.untrained": _cfg(stem="conv"),
        "deepvit_large_420_patch16_224.untrained": _cfg(stem="conv"),
        "deepvit_large_420_patch16_384.untrained": _cfg(384, stem="conv"),
    }
)


class DeepBlock(vit.Block):
    """timm's transformer block with re-attention and the authors' residual adjustment.

    With the adjustment a:

        x <- x + attn(norm1(a x)) / a,    x <- x + mlp(norm2(a x)) / a

    LayerNorm takes a out again but for its eps, so that a = 0.5 doubles both branches.

    Args:
        *args: of timm's block.
        adjustment: a.
        re_attention: arguments of :meth:`ReAttention.replacing`.
        mixing: indices of the blocks that re-attend; the others keep plain attention.
        qk_scale: factor on Q K^T; None is (C / H) ** -0.5.
        depth: index of this block, as timm gives it.
        **kw: of timm's block.
    """

    def __init__(
        self,
        *args: Any,
        adjustment: float = 1.0,
        re_attention: Mapping[str, Any],
        mixing: Collection[int],
        qk_scale: float | None = None,
        depth: int = 0,
        **kw: Any,
    ) -> None:
        super().__init__(*args, depth=depth, **kw)
        self.adjustment = adjustment
        own: Any = self
        if qk_scale is not None:
            own.attn.scale = qk_scale
            own.attn.fused_attn = False  # timm's call of the fused kernel has the usual scale
        if depth in mixing:
            own.attn = ReAttention.replacing(own.attn, **re_attention)

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> torch.Tensor:
        """Return the next tokens, [B, N, C]."""
        a = self.adjustment
        if a == 1:
            y: torch.Tensor = super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
            return y
        attended = self.attn(self.norm1(a * x), attn_mask=attn_mask, is_causal=is_causal)
        x = x + self.drop_path1(self.ls1(attended)) / a
        x = x + self.drop_path2(self.ls2(self.mlp(self.norm2(a * x)))) / a
        return x


_STEMS: dict[str, Any] = {"patch": SizedPatchEmbed, "conv": ConvPatchEmbed}


class DeepViT(vit.VisionTransformer):
    """timm's vision transformer of :class:`DeepBlock`, built by :func:`deepvit`."""

    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        """Draw the weights as timm does; theta as :class:`foveal.layers.ReAttention` says."""
        super().init_weights(mode, needs_reset)
        if mode or self.weight_init_mode:  # other draws than timm's usual include convolutions
            for block in self.blocks:
                if isinstance(block.attn, ReAttention):
                    block.attn.reset_parameters()

    def _pos_embed(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 0:  # timm's view of an empty batch has no definite shape
            one: torch.Tensor = super()._pos_embed(x.new_zeros((1, *x.shape[1:])))
            return one[:0]
        placed: torch.Tensor = super()._pos_embed(x)
        return placed


def deepvit(
    pretrained: bool = False,
    *,
    img_size: Any = 224,
    patch_size: Any = 16,
    embed_dim: int = 384,
    depth: int = 12,
    num_heads: int = 12,
    mlp_ratio: float = 3.0,
    stem: Stem = "patch",
    re_attention: int | Sequence[int] | None = None,
    adjustment: float = 1.0,
    qk_scale: float | None = None,
    transform_scale: bool = False,
    norm: Norm = "batch",
    theta_init: ThetaInit = "conv",
    save_memory: bool = False,
    **kw: Any,
) -> nn.Module:
    """DeepViT of any size: also for small pictures, and with plain attention alone.

    Args:
        pretrained: there are no published weights; ``pretrained_cfg_overlay`` names your own.
        img_size: side of the pictures in pixels, or (H, W); other sizes later by timm's
            ``set_input_size`` or with ``dynamic_img_size=True``. Position embeddings are resampled,
            and running means of re-attention follow the number of tokens.
        patch_size: side of a patch, pixels.
        embed_dim: C, width of the tokens, a multiple of ``num_heads``.
        depth: number of blocks.
        num_heads: H.
        mlp_ratio: width of the MLPs, in C.
        stem: ``patch``, one convolution; or ``conv``, the authors' convolutional embedding.
        re_attention: how many blocks, the last ones, have re-attention, or the indices of these;
            None is all, 0 a plain vision transformer.
        adjustment: a, the authors' residual adjustment; 0.5 doubles every branch.
        qk_scale: factor on Q K^T; None is (C / H) ** -0.5.
        transform_scale: as of :class:`foveal.layers.ReAttention`.
        norm: likewise.
        theta_init: likewise.
        save_memory: likewise.
        **kw: ``num_classes``, ``in_chans``, ``features_only``, ``out_indices`` and the arguments of
            timm's ``VisionTransformer``, such as ``drop_path_rate`` and ``dynamic_img_size``.

    Raises:
        ValueError: a width that is no multiple of the heads, a picture that is not one of whole
            patches, more blocks with re-attention than blocks, an unknown stem.
    """
    return _build(
        "deepvit",
        pretrained,
        img_size=img_size,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        stem=stem,
        re_attention=re_attention,
        adjustment=adjustment,
        qk_scale=qk_scale,
        transform_scale=transform_scale,
        norm=norm,
        theta_init=theta_init,
        save_memory=save_memory,
        **kw,
    )


register_model(deepvit)  # not as a decorator, which would take the types away


def _build(
    variant: str,
    pretrained: bool,
    *,
    depth: int,
    embed_dim: int = 384,
    num_heads: int = 12,
    mlp_ratio: float = 3.0,
    img_size: Any = 224,
    patch_size: Any = 16,
    stem: str = "patch",
    re_attention: int | Sequence[int] | None = None,
    adjustment: float = 1.0,
    qk_scale: float | None = None,
    transform_scale: bool = False,
    norm: Norm = "batch",
    theta_init: ThetaInit = "conv",
    save_memory: bool = False,
    **kw: Any,
) -> nn.Module:
    """Build a registered network; the arguments are those of :func:`deepvit`."""
    if stem not in _STEMS:
        raise ValueError(unknown("stem", stem, _STEMS))
    _check_numbers(embed_dim=embed_dim, num_heads=num_heads, depth=depth)
    ReAttention(embed_dim, num_heads, norm=norm, theta_init=theta_init, device="meta")  # it checks
    sides, patch_sides = to_2tuple(img_size), to_2tuple(patch_size)
    for name, side, patch in zip(("height", "width"), sides, patch_sides, strict=True):
        check_whole(f"the picture's {name}", side)
        _check_numbers(patch_size=patch)
        check_patches(name, side, patch)
    mixing = _mixing(re_attention, depth)
    if kw.get("dynamic_img_pad") and not kw.get("dynamic_img_size"):
        raise ValueError("dynamic_img_pad needs dynamic_img_size=True")
    if not adjustment > 0:
        raise ValueError(f"adjustment must be more than 0, not {adjustment!r}")
    layer_args = {
        "transform_scale": transform_scale,
        "norm": norm,
        "theta_init": theta_init,
        "save_memory": save_memory,
    }
    block = partial(
        DeepBlock,
        adjustment=adjustment,
        re_attention=layer_args,
        mixing=mixing,
        qk_scale=qk_scale,
    )
    # As many maps as timm's vision transformers return.
    out_indices = kw.pop("out_indices", min(3, depth))
    check_out_indices(out_indices, depth)
    network: nn.Module = build_model_with_cfg(
        DeepViT,
        variant,
        pretrained,
        pretrained_filter_fn=vit.checkpoint_filter_fn,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        img_size=img_size,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        embed_layer=_STEMS[stem],
        block_fn=block,
        **kw,
    )
    described: Any = network
    described.pretrained_cfg = described.default_cfg = {
        **described.pretrained_cfg,
        "input_size": (kw.get("in_chans", 3), *sides),
        "first_conv": _FIRST_CONV[stem],
    }
    return network


def _check_numbers(**numbers: Any) -> None:
    """Do nothing if all are whole numbers of at least 1.

    Raises:
        TypeError: one is no whole number.
        ValueError: one is less than 1.
    """
    for name, value in numbers.items():
        check_whole(name, value)
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


def _mixing(re_attention: int | Sequence[int] | None, depth: int) -> Collection[int]:
    """Return the indices of the blocks with re-attention.

    Raises:
        TypeError: they are given by something else than whole numbers.
        ValueError: there are no such blocks.
    """
    if re_attention is None:
        return range(depth)
    if not isinstance(re_attention, Sequence):
        check_whole("re_attention", re_attention)
        if not 0 <= re_attention <= depth:
            raise ValueError(
                f"re_attention must lie between 0 and the depth {depth}, not {re_attention}"
            )
        return range(depth - re_attention, depth)
    for index in re_attention:
        check_whole("an index in re_attention", index)
        if not 0 <= index < depth:
            raise ValueError(
                f"re_attention names block {index}, and there are blocks 0 to {depth - 1}"
            )
    return tuple(re_attention)


# What the authors' networks with a convolutional stem share.
_SMALL: dict[str, Any] = {
    "embed_dim": 396,
    "depth": 16,
    "stem": "conv",
    "re_attention": 5,
    "adjustment": 0.5,
    "transform_scale": True,
}
_LARGE: dict[str, Any] = {"depth": 32, "stem": "conv", "re_attention": 12, "adjustment": 0.5}


@register_model
def deepvit_16_patch16_224(pretrained: bool = False, **kw: Any) -> nn.Module:
    """16 blocks of width 384 with re-attention in all of them."""
    return _build("deepvit_16_patch16_224", pretrained, **{"depth": 16, **kw})


@register_model
def deepvit_24_patch16_224(pretrained: bool = False, **kw: Any) -> nn.Module:
    """24 blocks of width 384 with re-attention in all of them."""
    return _build("deepvit_24_patch16_224", pretrained, **{"depth": 24, **kw})


@register_model
def deepvit_32_patch16_224(pretrained: bool = False, **kw: Any) -> nn.Module:
    """32 blocks of width 384 with re-attention in all of them."""
    return _build("deepvit_32_patch16_224", pretrained, **{"depth": 32, **kw})


@register_model
def deepvit_16_plain_patch16_224(pretrained: bool = False, **kw: Any) -> nn.Module:
    """16 blocks of width 384 with plain attention."""
    plain = {"depth": 16, "re_attention": 0}
    return _build("deepvit_16_plain_patch16_224", pretrained, **{**plain, **kw})


@register_model
def deepvit_24_plain_patch16_224(pretrained: bool = False, **kw: Any) -> nn.Module:
    """24 blocks of width 384 with plain attention."""
    plain = {"depth": 24, "re_attention": 0}
    return _build("deepvit_24_plain_patch16_224", pretrained, **{**plain, **kw})


@register_model
def deepvit_32_plain_patch16_224(pretrained: bool = False, **kw: Any) -> nn.Module:
    """32 blocks of width 384 with plain attention."""
    plain = {"depth": 32, "re_attention": 0}
    return _build("deepvit_32_plain_patch16_224", pretrained, **{**plain, **kw})


@register_model
def deepvit_small_patch16_224(pretrained: bool = False, **kw: Any) -> nn.Module:
    """DeepViT-S: 16 blocks of width 396, the last 5 with re-attention, convolutional stem."""
    return _build("deepvit_small_patch16_224", pretrained, **{**_SMALL, **kw})


@register_model
def deepvit_large_patch16_224(pretrained: bool = False, **kw: Any) -> nn.Module:
    """DeepViT-L: 32 blocks of width 408, which is the size that the paper states."""
    return _build("deepvit_large_patch16_224", pretrained, **{**_LARGE, "embed_dim": 408, **kw})


@register_model
def deepvit_large_420_patch16_224(pretrained: bool = False, **kw: Any) -> nn.Module:
    """DeepViT-L of width 420, as the authors' code and weights have it."""
    wide = {**_LARGE, "embed_dim": 420}
    return _build("deepvit_large_420_patch16_224", pretrained, **{**wide, **kw})


@register_model
def deepvit_large_420_patch16_384(pretrained: bool = False, **kw: Any) -> nn.Module:
    """DeepViT-L of width 420 for pictures of 384 pixels, 577 tokens."""
    wide = {**_LARGE, "embed_dim": 420, "img_size": 384}
    return _build("deepvit_large_420_patch16_384", pretrained, **{**wide, **kw})
