"""Patch embeddings of DeepViT: timm's, which says what pictures it takes, and one on convolutions.

Source: the official code of Zhou et al. 2021, arXiv:2103.11886.
"""

from typing import Any

import torch
from timm.layers import patch_embed as timm_patch_embed
from torch import nn

patches: Any = timm_patch_embed  # annotated too sparsely for the type checker

_STEM_CHANNELS = 64


class SizedPatchEmbed(patches.PatchEmbed):
    """timm's patch embedding, which says what pictures it would take."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the patches of pictures [B, C, H, W]: [B, N, D], or a grid [B, h, w, D].

        Raises:
            ValueError: the network does not take pictures of this size.
        """
        x = self.proj(self.stem(self._fitted(x)))
        if self.flatten:
            x = x.flatten(2).transpose(1, 2)
        elif self.output_fmt != patches.Format.NCHW:
            x = patches.nchw_to(x, self.output_fmt)
        y: torch.Tensor = self.norm(x)
        return y

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map that is cut into patches: here the picture itself."""
        return x

    def _fitted(self, x: torch.Tensor) -> torch.Tensor:
        """Return the picture, padded to whole patches where the network is for any size.

        Raises:
            ValueError: the network does not take pictures of this size.
        """
        sides = x.shape[2:]
        if self.dynamic_img_pad:
            right, bottom = (-sides[i] % self.patch_size[i] for i in (1, 0))
            return nn.functional.pad(x, (0, right, 0, bottom))
        for name, side, own, patch in zip(
            ("height", "width"), sides, self.img_size, self.patch_size, strict=True
        ):
            if self.strict_img_size and side != own:
                raise ValueError(
                    f"a picture of {name} {side} is given and the network is for {own}: call its "
                    "set_input_size, or build it with dynamic_img_size=True"
                )
            check_patches(name, side, patch)
        return x

    def _init_img_size(self, img_size: Any) -> Any:
        sides = patches.to_2tuple(img_size)
        for name, side, patch in zip(("height", "width"), sides, self.patch_size, strict=True):
            check_patches(name, side, patch)
        return super()._init_img_size(img_size)


class ConvPatchEmbed(SizedPatchEmbed):
    """Patches of a map that two convolutions made of the picture, at half its size.

    A 7 x 7 convolution of stride 2 and a 3 x 3 one, each with 64 channels, BatchNorm and ReLU, then
    patches of half the side. Keys: ``conv1``, ``bn1``, ``conv2``, ``bn2``, ``proj``.

    Args:
        img_size: of the picture, pixels.
        patch_size: of a patch of the picture, pixels, even.
        in_chans: C of the picture.
        embed_dim: width of the tokens.
        device: where the parameters are made.
        dtype: type of the parameters.
        **kw: of timm's ``PatchEmbed``.

    Shape:
        input [B, C, H, W]; output [B, N, embed_dim], or a grid as timm's ``output_fmt`` says.

    Raises:
        ValueError: an odd ``patch_size``; an ``img_size`` that is not one of whole patches.
    """

    def __init__(
        self,
        img_size: Any = 224,
        patch_size: Any = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        *,
        device: Any = None,
        dtype: Any = None,
        **kw: Any,
    ) -> None:
        made = {"device": device, "dtype": dtype}
        half = _half(patch_size)
        super().__init__(img_size, patch_size, _STEM_CHANNELS, embed_dim, **kw, **made)
        bias = kw.get("bias", True)
        del self.proj  # it comes last, so that the first convolution is that of the picture
        self.conv1 = nn.Conv2d(in_chans, _STEM_CHANNELS, 7, stride=2, padding=3, bias=False, **made)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS, **made)
        self.conv2 = nn.Conv2d(_STEM_CHANNELS, _STEM_CHANNELS, 3, padding=1, bias=False, **made)
        self.bn2 = nn.BatchNorm2d(_STEM_CHANNELS, **made)
        self.proj: nn.Module = nn.Conv2d(
            _STEM_CHANNELS, embed_dim, half, stride=half, bias=bias, **made
        )

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the pictures' size.

        Raises:
            ValueError: another patch size, for which the stem's patches cannot be resampled.
        """
        if patch_size is not None and patches.to_2tuple(patch_size) != self.patch_size:
            raise ValueError(f"the patch_size of the convolutional stem stays {self.patch_size}")
        super().set_input_size(img_size)

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map of the two convolutions, [B, 64, H / 2, W / 2]."""
        x = self.bn1(self.conv1(x)).relu()
        return self.bn2(self.conv2(x)).relu()  # type: ignore[no-any-return]


def _half(patch_size: Any) -> tuple[int, int]:
    """Return half the sides of a patch.

    Raises:
        ValueError: a side is odd; the message names the nearest that are not.
    """
    height, width = patches.to_2tuple(patch_size)
    for side in (height, width):
        if side % 2:
            near = f"{side - 1} and {side + 1} are" if side > 1 else "2 is"
            raise ValueError(
                f"the convolutional stem needs an even patch_size, as {near}, not {side}"
            )
    return height // 2, width // 2


def check_patches(name: str, side: int, patch: int) -> None:
    """Do nothing if a side of a picture is one of whole patches.

    Raises:
        ValueError: it is not; the message names the nearest.
    """
    if side % patch:
        nearest = max(1, round(side / patch)) * patch
        raise ValueError(
            f"a picture's {name} must be a multiple of the patch size {patch}, as {nearest} is, "
            f"not {side}"
        )
