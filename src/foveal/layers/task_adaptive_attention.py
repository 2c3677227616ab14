"""Task-adaptive attention: a gate for each place and channel of a map, shared by several tasks."""

import torch
import torch.nn.functional as F
from torch import nn

from foveal.layers.group_norm import conv_norm, narrowed


class TaskAdaptiveAttention(nn.Module):
    """Emphasise what matters in a task's map, and smooth it: the paper's TAM.

        a = sigmoid(gn(conv_1x1(relu(gn(conv_1x1(x))))))
        y = relu(gn(conv_3x3(x + x * a)))

    with a quarter of the channels between the two 1x1 convolutions. One layer serves all tasks;
    what it does for each follows from that task's map alone.

    Source: Liu, Hou, Cheng 2020, arXiv:2004.08595 (DFI), and the authors' code, whose ``TAM`` this
    is; key names are theirs.
    Differs from the official code: any number of channels; the norms' groups are those of
    :func:`foveal.layers.group_norm.group_norm`, which at multiples of 4 up to 128 and of 32 above
    are the official ones.

    Args:
        channels: C, channels of the map.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input [B, C, H, W], any H, W >= 1; output the same, in the input's type, all >= 0.

    Raises:
        ValueError: ``channels`` is less than 1.

    Example:
        >>> TaskAdaptiveAttention(16)(torch.rand(2, 16, 7, 9)).shape
        torch.Size([2, 16, 7, 9])
    """

    def __init__(
        self,
        channels: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, not {channels}")
        self.attention = narrowed(channels, device=device, dtype=dtype)
        self.block = nn.Sequential(*conv_norm(channels, channels, 3, device=device, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the task's map, [B, C, H, W]."""
        return F.relu(self.block(x + x * self.gate(x))).to(x.dtype)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the attention in (0, 1), [B, C, H, W]."""
        attention: torch.Tensor = self.attention(x)
        return attention.sigmoid()
