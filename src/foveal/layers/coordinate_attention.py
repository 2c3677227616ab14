"""Coordinate attention: a gate for each row times a gate for each column, per channel."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


class CoordinateAttention(nn.Module):
    """Gate a feature map by what its rows and its columns hold on average.

    Averages over each row and each column, [B, C, H, 1] and [B, C, 1, W], pass one shared
    bottleneck (1x1 convolution, normalisation, hard-swish) and become two gates in (0, 1):

        y[b, c, h, w] = x[b, c, h, w] * gate_w[b, c, w] * gate_h[b, c, h]

    so a channel can be raised at one place and not, as in squeeze-and-excitation, only as a whole.

    Source: Hou, Zhou, Feng 2021, arXiv:2103.02907, section 3.2, and the authors' code; key names
    are those of their stand-alone layer.
    Differs from the official code: nothing in its numbers (see the fixtures). The averages are
    means, not pooling modules, so that the layer scripts, exports with dynamic sizes and runs
    under deterministic algorithms; float16 averages are accumulated in float32.

    Args:
        channels: C, channels in and out.
        reduction: r; the bottleneck has max(8, C // r) channels (not rounded to multiples of 8).
        norm_layer: called with the bottleneck's channels, ``device`` and ``dtype``. In training,
            BatchNorm sees B * (H + W) values per channel: rows and columns share its statistics.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input [B, C, H, W], any H, W >= 1; output the same, in the input's memory format.
        Under autocast the output keeps the type of the input, float32 or the lower one.

    Raises:
        ValueError: ``channels`` or ``reduction`` is less than 1.

    Example:
        >>> CoordinateAttention(16)(torch.rand(2, 16, 7, 9)).shape
        torch.Size([2, 16, 7, 9])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 32,
        *,
        norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, not {channels}")
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, not {reduction}")
        bottleneck = max(8, channels // reduction)  # the authors' floor of 8
        self.conv1 = nn.Conv2d(channels, bottleneck, 1, device=device, dtype=dtype)
        self.bn1 = norm_layer(bottleneck, device=device, dtype=dtype)
        self.conv_h = nn.Conv2d(bottleneck, channels, 1, device=device, dtype=dtype)
        self.conv_w = nn.Conv2d(bottleneck, channels, 1, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gated map, [B, C, H, W]."""
        gate_h, gate_w = self.gates(x)
        return x * gate_w * gate_h

    def gates(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the row gates [B, C, H, 1] and the column gates [B, C, 1, W], in (0, 1)."""
        rows, columns = _means(x)  # [B, C, H, 1] and [B, C, W, 1]
        # Joined before the normalisation: its statistics are those of rows and columns together.
        joined = torch.cat([rows, columns], dim=2)  # [B, C, H + W, 1]
        squeezed = F.hardswish(self.bn1(self.conv1(joined)))
        rows, columns = torch.split(squeezed, [x.shape[2], x.shape[3]], dim=2)
        gate_h = self.conv_h(rows).sigmoid()
        # Turned last: so the gate lies in memory as x does, and the product is as quick.
        gate_w = self.conv_w(columns).sigmoid().transpose(2, 3)
        return gate_h, gate_w


@torch.fx.wrap  # symbolic tracing cannot follow the branch
def _means(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the means over the width [B, C, H, 1] and over the height [B, C, W, 1]."""
    if x.stride(1) < x.stride(3):
        # channels_last: torch averages it faster in the order in which it lies.
        last = x.permute(0, 2, 3, 1)
        rows, columns = last.mean(2, keepdim=True), last.mean(1).unsqueeze(2)
        return rows.permute(0, 3, 1, 2), columns.permute(0, 3, 1, 2)
    return x.mean(3, keepdim=True), x.mean(2).unsqueeze(3)
