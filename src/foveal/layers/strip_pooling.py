"""Strip pooling: a gate for each place from what its row and its column hold on average."""

import torch
import torch.nn.functional as F
from torch import nn


class StripPooling(nn.Module):
    """Gate a feature map by the averages of its rows and columns: the paper's SPM, applied.

    The averages over each row and each column, [B, C, H, 1] and [B, C, 1, W], are each filtered
    along their length and normalised; their broadcast sum becomes a gate for every place:

        gate = sigmoid(conv3(relu(bn1(conv1(rows)) + bn2(conv2(columns)))))
        y[b, c, h, w] = x[b, c, h, w] * gate[b, c, h, w]

    so a place sees everything in the cross of its row and its column, and long thin things, such as
    poles and rails, are not mixed with what is beside them.

    Source: Hou, Zhang, Cheng, Feng 2020, arXiv:2003.13328, section 3.1, and the authors' code,
    whose ``SPBlock`` is :meth:`gate` (there the caller multiplies); key names are theirs.
    Differs from the official code: nothing in its numbers (see the fixtures). The averages are
    means and the sum broadcasts. In training, a single strip (B * H = 1 or B * W = 1), which has no
    variance, is normalised by the running statistics, where the official code fails.

    Args:
        channels: C, channels of the map.
        gate_channels: channels of the gate, equal to ``channels`` by default. With another number
            only :meth:`gate` is defined.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input [B, C, H, W], any H, W >= 1; output the same, in the input's memory format.
        Under autocast the output keeps the type of the input, float32 or the lower one.
        In training, the BatchNorms see B * H and B * W values per channel.

    Raises:
        ValueError: ``channels`` or ``gate_channels`` is less than 1; in ``forward``, they differ.

    Example:
        >>> StripPooling(16)(torch.rand(2, 16, 7, 9)).shape
        torch.Size([2, 16, 7, 9])
        >>> StripPooling(16, gate_channels=4).gate(torch.rand(2, 16, 7, 9)).shape
        torch.Size([2, 4, 7, 9])
    """

    def __init__(
        self,
        channels: int,
        gate_channels: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        gates = channels if gate_channels is None else gate_channels
        if channels < 1:
            raise ValueError(f"channels must be at least 1, not {channels}")
        if gates < 1:
            raise ValueError(f"gate_channels must be at least 1, not {gates}")
        self.channels, self.gate_channels = channels, gates
        # Rows are averages over the width: their filter runs along the height.
        self.conv1 = nn.Conv2d(
            channels, gates, (3, 1), padding=(1, 0), bias=False, device=device, dtype=dtype
        )
        self.bn1 = BatchNormOfMeans(gates, device=device, dtype=dtype)
        self.conv2 = nn.Conv2d(
            channels, gates, (1, 3), padding=(0, 1), bias=False, device=device, dtype=dtype
        )
        self.bn2 = BatchNormOfMeans(gates, device=device, dtype=dtype)
        self.conv3 = nn.Conv2d(gates, gates, 1, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gated map, [B, C, H, W]."""
        if self.gate_channels != self.channels:
            raise ValueError(
                f"{self.channels} channels cannot be multiplied by {self.gate_channels} gates: "
                "leave gate_channels out, or call gate"
            )
        return x * self.gate(x)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gate in (0, 1), [B, gate_channels, H, W]."""
        rows, columns = strip_means(x)
        crosses = self.bn1(self.conv1(rows)) + self.bn2(self.conv2(columns))
        gate: torch.Tensor = self.conv3(F.relu(crosses)).sigmoid()
        return gate


class BatchNormOfMeans(nn.BatchNorm2d):
    """BatchNorm that takes a single value per channel in training, where BatchNorm2d refuses it.

    That value has no variance: it is normalised by the running statistics, which stay as they are.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised map, [B, C, H, W]."""
        batch = self.training
        if batch and x.numel() == x.shape[1]:
            batch = False
        momentum = 0.0 if self.momentum is None else self.momentum
        if batch and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # torch's word for the plain mean of all batches
                momentum = 1.0 / float(self.num_batches_tracked)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            batch,
            momentum,
            self.eps,
        )


@torch.fx.wrap  # symbolic tracing cannot follow the branch
def strip_means(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the means over the width [B, C, H, 1] and over the height [B, C, 1, W]."""
    if x.stride(1) < x.stride(3):
        # channels_last: torch averages it faster in the order in which it lies.
        last = x.permute(0, 2, 3, 1)
        rows, columns = last.mean(2, keepdim=True), last.mean(1, keepdim=True)
        return rows.permute(0, 3, 1, 2), columns.permute(0, 3, 1, 2)
    return x.mean(3, keepdim=True), x.mean(2, keepdim=True)
