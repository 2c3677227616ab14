"""Convolutions with GroupNorm of four channels a group, of which DFI's layers are made."""

import torch
from torch import nn

_GROUPS = 32  # at most


def group_norm(
    channels: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.GroupNorm:
    """Return GroupNorm with four channels a group and at most 32 groups.

    Where that does not divide the channels, there are as many groups as do, below that number: at
    least one.

    Args:
        channels: C of the map, at least 1.
        device: where the parameters are made.
        dtype: type of the parameters.

    Example:
        >>> [group_norm(channels).num_groups for channels in (16, 128, 256, 13, 3)]
        [4, 32, 32, 1, 1]
    """
    most = max(1, min(channels // 4, _GROUPS))
    groups = next(n for n in range(most, 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, device=device, dtype=dtype)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Return a convolution without bias that keeps the size, and its :func:`group_norm`."""
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=kernel_size // 2,
        bias=False,
        device=device,
        dtype=dtype,
    )
    return conv, group_norm(out_channels, device=device, dtype=dtype)


def narrowed(
    channels: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Return 1x1 convolutions to a quarter of the channels and back, with norms, ReLU between."""
    inner = max(1, channels // 4)
    return nn.Sequential(
        *conv_norm(channels, inner, device=device, dtype=dtype),
        nn.ReLU(inplace=True),
        *conv_norm(inner, channels, device=device, dtype=dtype),
    )
