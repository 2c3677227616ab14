"""Pyramid pooling: the averages of a few coarse grids beside a feature map."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from foveal.layers.mixed_pooling import pooled
from foveal.layers.strip_pooling import BatchNormOfMeans

torch.fx.wrap("pooled")  # symbolic tracing knows it in its own file only


class PyramidPooling(nn.Module):
    """Concatenate a feature map with its averages over grids of growing fineness.

    Each grid of n x n bins is averaged, reduced to C / len(bins) channels by a 1x1 convolution with
    BatchNorm and ReLU, and enlarged bilinearly to the map's size:

        y = concat(x, up(CBR_1x1(pool_1(x))), ..., up(CBR_1x1(pool_6(x))))

    Source: Zhao et al. 2017, arXiv:1612.01105, section 3.2.
    The pools are products with averaging matrices, so that they export to ONNX; in training, a
    single bin (a batch of 1 in the coarsest grid) is normalised by the running statistics.

    Args:
        channels: C, channels of the map.
        bins: sides of the grids; each adds C // len(bins) channels.
        align_corners: how grids are enlarged, as in :func:`torch.nn.functional.interpolate`.
        device: where the parameters are made.
        dtype: type of the parameters.

    Attributes:
        out_channels: channels of the output, 2 C where len(bins) divides C.

    Shape:
        input [B, C, H, W], any H, W >= 1; output [B, out_channels, H, W].

    Raises:
        ValueError: no bins, one of less than 1, or fewer channels than bins.

    Example:
        >>> PyramidPooling(16)(torch.rand(2, 16, 7, 9)).shape
        torch.Size([2, 32, 7, 9])
    """

    def __init__(
        self,
        channels: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        *,
        align_corners: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not bins or min(bins) < 1:
            raise ValueError(f"bins must be sides of at least 1, not {bins!r}")
        if channels < len(bins):
            raise ValueError(f"channels must be at least {len(bins)}, one per grid, not {channels}")
        self.bins = tuple(bins)
        self.align_corners = align_corners
        reduced = channels // len(bins)
        self.out_channels = channels + len(bins) * reduced
        self.reductions = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, reduced, 1, bias=False, device=device, dtype=dtype),
                BatchNormOfMeans(reduced, device=device, dtype=dtype),
                nn.ReLU(inplace=True),
            )
            for _ in bins
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map and its context, [B, out_channels, H, W]."""
        maps, size = [x], [x.shape[2], x.shape[3]]
        for i, reduce in enumerate(self.reductions):
            grid = reduce(pooled(x, self.bins[i]))
            maps.append(
                F.interpolate(grid, size, mode="bilinear", align_corners=self.align_corners)
            )
        return torch.cat(maps, dim=1)
