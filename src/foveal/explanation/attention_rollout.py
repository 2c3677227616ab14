"""Where a vision transformer attends to: its last attention, and attention through all layers."""

from typing import Any

import torch
from torch import Tensor, nn

from foveal.explanation.explanation import Explanation, explanations
from foveal.explanation.looking import PatchGrid, plain, run
from foveal.layers.attention_maps import reading_attention_maps
from foveal.names import unknown

HEADS = ("mean", "min", "max")


def last_attention(
    model: nn.Module, x: Tensor, target: None = None, *, heads: str = "mean"
) -> list[Explanation]:
    """Return what the class token attends to in the last layer.

    In networks that average patches instead of reading a class token, the mean over their queries.

    Args:
        model: a vision transformer whose attention maps can be read, see
            :func:`foveal.layers.attention_maps.attention_maps`; it is left as it was.
        x: pictures as the network wants them, [B, C, H, W].
        target: attention knows no classes: None.
        heads: how heads are put together, ``mean``, ``min`` or ``max``.

    Returns:
        One explanation for each picture. Values at the patches; with ``mean`` they and those of the
        other tokens sum to 1.

    Raises:
        ValueError: no attention that can be read, no patches, unknown heads, a target.

    Example:
        >>> from timm.models.vision_transformer import VisionTransformer
        >>> vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
        >>> (explanation,) = last_attention(vit, torch.rand(1, 3, 32, 32))
        >>> explanation.layer, explanation.raw.shape, explanation.map.shape
        ('blocks.1.attn', torch.Size([4, 4]), torch.Size([32, 32]))
    """
    return _read("attention", model, x, target, _Last(heads))


def rollout(
    model: nn.Module, x: Tensor, target: None = None, *, heads: str = "mean"
) -> list[Explanation]:
    """Return how much of each patch reaches the class token through the attention of all layers.

    With A the maps of a layer, heads put together, and I for the residual connection, rollout is
    the product over layers of (A + I) / 2, its rows divided by their sums, the last layer leftmost;
    of it the class token's row, or the mean over the patches' rows as in :func:`last_attention`.
    Values below 0, which only re-attention has, count as 0.

    Source: Abnar and Zuidema 2020, arXiv:2005.00928, section 3, which has the mean over heads.

    Args:
        model: as for :func:`last_attention`, with the same tokens in all layers.
        x: pictures as the network wants them, [B, C, H, W].
        target: rollout knows no classes: None.
        heads: how heads are put together, ``mean``, ``min`` or ``max``.

    Returns:
        One explanation for each picture.

    Raises:
        ValueError: as of :func:`last_attention`; layers with different numbers of tokens.
    """
    return _read("rollout", model, x, target, _Product(heads))


class _Last:
    """The maps of the last layer, heads put together."""

    def __init__(self, heads: str) -> None:
        if heads not in HEADS:
            raise ValueError(unknown("way to put heads together", heads, HEADS))
        self.heads = heads
        self.layer = ""
        self.maps = torch.zeros(())

    def __call__(self, layer: str, maps: Tensor) -> None:
        """Take in the maps [B, H, N, N] of the next layer."""
        with torch.autocast(maps.device.type, enabled=False):
            self._add(layer, self._fused(maps))
        self.layer = layer

    def _add(self, layer: str, maps: Tensor) -> None:
        self.maps = maps

    def _fused(self, maps: Tensor) -> Tensor:
        if self.heads == "mean":
            return maps.mean(1)
        return maps.amin(1) if self.heads == "min" else maps.amax(1)


class _Product(_Last):
    """The product of the maps of all layers, residual connections included."""

    def _add(self, layer: str, maps: Tensor) -> None:
        if self.layer and maps.shape != self.maps.shape:
            raise ValueError(
                f"rollout needs the same tokens in all layers, and {self.layer!r} has "
                f"{self.maps.shape[1]}, {layer!r} {maps.shape[1]}: use gradcam"
            )
        own = maps.clamp(min=0) + torch.eye(maps.shape[1], dtype=maps.dtype, device=maps.device)
        own = own / own.sum(2, keepdim=True)
        self.maps = own @ self.maps if self.layer else own


def _read(method: str, model: nn.Module, x: Tensor, target: Any, read: _Last) -> list[Explanation]:
    if target is not None:
        raise ValueError(f"{method} is the same for all classes: leave target out")
    model = plain(model)
    patches = PatchGrid()
    handles = [module.register_forward_hook(patches) for module in model.modules()]
    try:
        with reading_attention_maps(model, read):
            run(model, x)
    finally:
        for handle in handles:
            handle.remove()
    height, width = patches.grid or (0, 0)
    tokens = read.maps.shape[-1] if read.layer else 0
    first = tokens - height * width
    if not height * width or first < 0:
        raise ValueError(
            f"the {tokens} tokens of {read.layer!r} in {type(model).__name__} are not those of "
            f"patches of the picture: {method} needs them"
        )
    rows = read.maps[:, :1] if _reads_class_token(model, first) else read.maps[:, first:]
    maps = rows[:, :, first:].mean(1).view(len(x), 1, height, width)
    return explanations(method, read.layer, maps, (x.shape[2], x.shape[3]))


def _reads_class_token(model: nn.Module, prefix: int) -> bool:
    """Tell whether the classifier reads a class token, the first of some prefix tokens."""
    # The transformer may be in a module around it.
    owner: Any = next((each for each in model.modules() if hasattr(each, "cls_token")), None)
    if prefix == 0 or (owner is not None and owner.cls_token is None):
        return False
    return getattr(owner, "global_pool", "token") in ("token", "")
