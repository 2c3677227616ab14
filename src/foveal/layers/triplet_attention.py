"""Triplet attention: one gate for each pair of a feature map's three axes."""

from collections import OrderedDict

import torch
from torch import nn


class TripletAttention(nn.Module):
    """Gate a feature map by three planes, one for each pair of channels, height and width.

    For each plane the map is pooled along the third axis to its maximum and its mean (Z-pool, two
    planes in this order). A convolution without bias, BatchNorm and a sigmoid make one plane of
    gates in (0, 1) of them, and the output is gated by the mean of the three:

        y[b, c, h, w] = x[b, c, h, w] * (g_cw[b, c, w] + g_hc[b, h, c] + g_hw[b, h, w]) / 3

    The channels are an axis of the convolutions: the result depends on their order, and tools that
    permute, prune or group channels change it.

    Source: Misra et al. 2021, arXiv:2010.03045, section 3, and the authors' code; key names are
    those of their stand-alone layer (``cw``, ``hc``, ``hw``).
    Differs from the official code: nothing in its numbers (see the fixtures). The map is never
    rotated nor multiplied three times, in low precision gates are averaged in float32, the kernel
    size is an argument, and there is none for what the authors' classes ignore.

    Args:
        kernel_size: k of the three convolutions, odd; the layer has 6 k^2 + 6 parameters
            whatever the map.
        spatial: with the gate over height and width; without it, two gates are averaged and there
            are 4 k^2 + 4 parameters.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input [B, C, H, W], any H, W >= 1; output the same, in the input's memory format.
        Under autocast the output keeps the type of the input, float32 or the lower one.
        In training each BatchNorm sees all values of its plane, B * H * W for the last, and needs
        more than one: a single picture of one pixel is refused by it.

    Raises:
        ValueError: ``kernel_size`` is even or less than 1.
        TypeError: ``kernel_size`` is no whole number, or ``spatial`` neither True nor False.

    Example:
        >>> TripletAttention()(torch.rand(2, 16, 7, 9)).shape
        torch.Size([2, 16, 7, 9])
    """

    def __init__(
        self,
        kernel_size: int = 7,
        spatial: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(kernel_size, int) or isinstance(kernel_size, bool):
            raise TypeError(f"kernel_size must be a whole number, not {kernel_size!r}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1, not {kernel_size}")
        if not isinstance(spatial, bool):
            raise TypeError(f"spatial must be True or False, not {spatial!r}")
        self.cw = _gate(kernel_size, device, dtype)
        self.hc = _gate(kernel_size, device, dtype)
        self.hw = _gate(kernel_size, device, dtype) if spatial else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gated map, [B, C, H, W]."""
        gate_w, gate_h, gate_hw = self.gates(x)
        # Averaged in float32 at least: a sum of three low-precision gates loses a digit.
        exact = torch.promote_types(x.dtype, torch.float32)
        gate = gate_w.to(exact) + gate_h.to(exact)
        gate = gate / 2 if gate_hw is None else (gate + gate_hw.to(exact)) / 3
        return x * gate.to(x.dtype)

    def gates(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return the gates in (0, 1): [B, C, 1, W], [B, C, H, 1], and [B, 1, H, W] or None."""
        gate_w = self.cw(_z_pool(x, 2)).transpose(1, 2)  # of planes [C, W]
        # Rows are H and columns C here, as the authors' weights have them.
        gate_h = self.hc(_z_pool(x, 3).transpose(2, 3)).permute(0, 3, 2, 1)
        gate_hw = None if self.hw is None else self.hw(_z_pool(x, 1))
        return gate_w, gate_h, gate_hw


def _gate(
    kernel_size: int, device: torch.device | str | None, dtype: torch.dtype | None
) -> nn.Sequential:
    """Return what makes one plane of gates [B, 1, R, S] of two planes [B, 2, R, S]."""
    conv = nn.Conv2d(
        2, 1, kernel_size, padding=kernel_size // 2, bias=False, device=device, dtype=dtype
    )
    bn = nn.BatchNorm2d(1, momentum=0.01, device=device, dtype=dtype)  # the authors' momentum
    inner = nn.Sequential(OrderedDict(conv=conv, bn=bn))
    return nn.Sequential(OrderedDict(conv=inner, gate=nn.Sigmoid()))


@torch.fx.wrap  # symbolic tracing cannot follow the branch
def _z_pool(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Return maximum and mean of x along ``dim``, stacked in its stead as [B, 2, ...]."""
    # Not amax: among equal values the gradient goes to one, as in the authors' code.
    if x.stride(1) < x.stride(3):
        # channels_last: torch reduces it faster in the order in which it lies.
        last, axis = x.permute(0, 2, 3, 1), 3 if dim == 1 else dim - 1
        planes = torch.stack([last.max(axis).values, last.mean(axis)], dim=1)
        return planes if dim == 1 else planes.transpose(2, 3)
    return torch.stack([x.max(dim).values, x.mean(dim)], dim=1)
