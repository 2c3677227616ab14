"""Squeeze-and-excitation and CBAM: timm's modules, with ``reduction`` as the other layers have it.

Keys are timm's, so timm's weights load. The squeezed width is the exact quotient, rounded to the
nearest whole number and at least 1; timm's own default rounds it to multiples of 8.
"""

import torch
from timm.layers.cbam import CbamModule
from timm.layers.squeeze_excite import SEModule


class SqueezeExcite(SEModule):
    """Gate each channel by the averages of all channels.

    Source: Hu et al. 2018, arXiv:1709.01507; ``timm.layers.SEModule`` with biases.

    Args:
        channels: C, channels in and out.
        reduction: C is squeezed to about C / reduction channels.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input [B, C, H, W], any H, W >= 1; output the same.

    Raises:
        ValueError: ``channels`` or ``reduction`` is less than 1.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        squeezed = _squeezed(channels, reduction)
        super().__init__(channels, rd_channels=squeezed, device=device, dtype=dtype)


class CBAM(CbamModule):
    """Gate each channel by averages and maxima, then each place by those over the channels.

    Source: Woo et al. 2018, arXiv:1807.06521; ``timm.layers.cbam.CbamModule`` with a 7x7 spatial
    filter and, unlike timm's default, biases in the channel gate's two layers: with them
    MobileNetV2 reaches the size that the coordinate attention paper gives for its CBAM row.
    In training the spatial gate's BatchNorm sees B * H * W values and needs more than one.

    Args:
        channels: C, channels in and out.
        reduction: C is squeezed to about C / reduction channels.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input [B, C, H, W], any H, W >= 1; output the same.

    Raises:
        ValueError: ``channels`` or ``reduction`` is less than 1.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        squeezed = _squeezed(channels, reduction)
        super().__init__(channels, rd_channels=squeezed, mlp_bias=True, device=device, dtype=dtype)


def _squeezed(channels: int, reduction: int) -> int:
    if channels < 1:
        raise ValueError(f"channels must be at least 1, not {channels}")
    if reduction < 1:
        raise ValueError(f"reduction must be at least 1, not {reduction}")
    return max(1, round(channels / reduction))
