"""Mixed pooling: what square pools and strips see around each place, added to a feature map."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from foveal.layers.strip_pooling import BatchNormOfMeans, strip_means

torch.fx.wrap("strip_means")  # symbolic tracing knows it in its own file only


class MixedPooling(nn.Module):
    """Add short-range and long-range context to a feature map: the paper's MPM.

    Two branches, each on its own reduction of the map to c = C / 4 channels, CBR (1x1):

        short = CBR(relu(CB(a) + up(CB(pool_20(a))) + up(CB(pool_12(a)))))      a = CBR_1x1(x)
        long = CBR(relu(CB_1x3(columns(b)) + CB_3x1(rows(b))))                  b = CBR_1x1(x)
        y = relu(x + CB_1x1(concat(short, long)))

    C is a convolution without bias (3x3 unless said), B BatchNorm, R ReLU. ``pool_k`` averages over
    k x k bins, whatever the map's size, and ``up`` enlarges bilinearly; ``rows`` and ``columns``
    are averages over the width and the height, and their sum broadcasts.

    Source: Hou, Zhang, Cheng, Feng 2020, arXiv:2003.13328, section 3.2, and the authors' code,
    where the class is called ``StripPooling``; key names are theirs.
    Differs from the official code: nothing in its numbers (see the fixtures). The long branch
    broadcasts where the authors resize strips to the whole map, which is the same and far quicker;
    the pools are products with two small averaging matrices, so that they export to ONNX. In
    training, a single strip or bin is normalised by the running statistics, where the official code
    fails.

    Args:
        channels: C, channels in and out; c = max(1, C // 4) inside.
        pool_sizes: sides of the two pooled grids; a grid may be finer than the map.
        align_corners: how pooled grids are enlarged, as in :func:`torch.nn.functional.interpolate`;
            True as in the authors' code.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input [B, C, H, W], any H, W >= 1; output the same, in the input's memory format.
        Under autocast the output keeps the type of the input, float32 or the lower one.
        A single picture of one pixel cannot be trained on: BatchNorm has one value there.

    Raises:
        ValueError: ``channels`` or a side is less than 1, or there are not two sides.

    Example:
        >>> MixedPooling(16)(torch.rand(2, 16, 7, 9)).shape
        torch.Size([2, 16, 7, 9])
    """

    def __init__(
        self,
        channels: int,
        pool_sizes: Sequence[int] = (20, 12),
        *,
        align_corners: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, not {channels}")
        if len(pool_sizes) != 2 or min(pool_sizes) < 1:
            raise ValueError(f"pool_sizes must be two sides of at least 1, not {pool_sizes!r}")
        self.pool_sizes = (pool_sizes[0], pool_sizes[1])
        self.align_corners = align_corners
        inner = max(1, channels // 4)

        def filtered(
            in_channels: int, out_channels: int, height: int, width: int, *, of_means: bool = False
        ) -> list[nn.Module]:
            conv = nn.Conv2d(
                in_channels,
                out_channels,
                (height, width),
                padding=(height // 2, width // 2),
                bias=False,
                device=device,
                dtype=dtype,
            )
            norm = BatchNormOfMeans if of_means else nn.BatchNorm2d
            return [conv, norm(out_channels, device=device, dtype=dtype)]

        self.conv1_1 = nn.Sequential(*filtered(channels, inner, 1, 1), nn.ReLU(inplace=True))
        self.conv1_2 = nn.Sequential(*filtered(channels, inner, 1, 1), nn.ReLU(inplace=True))
        self.conv2_0 = nn.Sequential(*filtered(inner, inner, 3, 3))
        self.conv2_1 = nn.Sequential(*filtered(inner, inner, 3, 3, of_means=True))
        self.conv2_2 = nn.Sequential(*filtered(inner, inner, 3, 3, of_means=True))
        self.conv2_3 = nn.Sequential(*filtered(inner, inner, 1, 3, of_means=True))
        self.conv2_4 = nn.Sequential(*filtered(inner, inner, 3, 1, of_means=True))
        self.conv2_5 = nn.Sequential(*filtered(inner, inner, 3, 3), nn.ReLU(inplace=True))
        self.conv2_6 = nn.Sequential(*filtered(inner, inner, 3, 3), nn.ReLU(inplace=True))
        self.conv3 = nn.Sequential(*filtered(2 * inner, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map with its context, [B, C, H, W]."""
        a = self.conv1_1(x)
        fine = self._enlarged(self.conv2_1(pooled(a, self.pool_sizes[0])), a)
        coarse = self._enlarged(self.conv2_2(pooled(a, self.pool_sizes[1])), a)
        short = self.conv2_5(F.relu(self.conv2_0(a) + fine + coarse))

        rows, columns = strip_means(self.conv1_2(x))
        long = self.conv2_6(F.relu(self.conv2_3(columns) + self.conv2_4(rows)))
        return F.relu(x + self.conv3(torch.cat([short, long], dim=1)))

    def _enlarged(self, grid: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        size = [like.shape[2], like.shape[3]]
        return F.interpolate(grid, size, mode="bilinear", align_corners=self.align_corners)


@torch.fx.wrap  # symbolic tracing cannot count to a size it does not know
def pooled(x: torch.Tensor, side: int) -> torch.Tensor:
    """Return the means over side x side bins, [B, C, side, side].

    The bins are those of adaptive average pooling, which overlap, or repeat pixels, where the
    sizes do not divide; that pooling is separable, and so the product of two averaging matrices.
    """
    down = _averages(x.shape[2], side, x)
    across = _averages(x.shape[3], side, x)
    return torch.matmul(torch.matmul(down, x), across.t())


def _averages(length: int, bins: int, like: torch.Tensor) -> torch.Tensor:
    """Return the matrix [bins, length] that averages over each bin."""
    place = torch.arange(length, device=like.device)
    bin_ = torch.arange(bins, device=like.device)
    # From floor(i * length / bins) to, exclusively, ceil((i + 1) * length / bins).
    start = (bin_ * length) // bins
    end = ((bin_ + 1) * length + bins - 1) // bins
    inside = (place >= start[:, None]) & (place < end[:, None])
    return inside.to(like.dtype) / (end - start).to(like.dtype)[:, None]
