"""What follows the backbone in DFI: a sixth level, equal widths, one map for each task and scale.

Source: Liu, Hou, Cheng 2020, arXiv:2004.08595, and the authors' code; key names are theirs, with
the task's name in place of its number.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from foveal.layers import SelectiveIntegration, TaskAdaptiveAttention
from foveal.layers.group_norm import conv_norm
from foveal.layers.mixed_pooling import pooled

_BINS = (1, 3, 5)


class PyramidSum(nn.Module):
    """Add to a reduced map its means over a few coarse grids: the level above the last.

        p = gn(conv_1x1(x)),   s = p + sum over bins of up(gn(conv_1x1(pool_bins(p))))
        y = gn(conv_3x3(relu(s)))

    Pools are products with averaging matrices, so that they export to ONNX; what is enlarged is
    enlarged bilinearly, corners aligned.

    Args:
        in_channels: of the backbone's last map.
        channels: of the result; 256 in the official network.
        bins: sides of the grids.

    Shape:
        input [B, in_channels, H, W], any H, W >= 1; output [B, channels, H, W].
    """

    def __init__(self, in_channels: int, channels: int, bins: Sequence[int] = _BINS) -> None:
        super().__init__()
        self.ppm_pre = nn.Sequential(*conv_norm(in_channels, channels))
        self.ppms = nn.ModuleList(
            nn.Sequential(_Pool(side), *conv_norm(channels, channels)) for side in bins
        )
        self.ppm_cat = nn.Sequential(*conv_norm(channels, channels, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the level, [B, channels, H, W]."""
        x = self.ppm_pre(x)
        total, size = x, [x.shape[2], x.shape[3]]
        for grid in self.ppms:
            total = total + F.interpolate(grid(x), size, mode="bilinear", align_corners=True)
        y: torch.Tensor = self.ppm_cat(F.relu(total))
        return y


class _Pool(nn.Module):
    """Means over side x side bins."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pooled(x, self.side)


class Converter(nn.Module):
    """Bring each level to a width of its own: 1x1 convolution, GroupNorm, ReLU.

    Args:
        in_channels: of each level.
        out_channels: of each level.

    Shape:
        input: for each level [B, in_channels[i], H_i, W_i]; output: a list of
        [B, out_channels[i], H_i, W_i].
    """

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int]) -> None:
        super().__init__()
        self.convert = nn.ModuleList(
            nn.Sequential(*conv_norm(a, b), nn.ReLU(inplace=True))
            for a, b in zip(in_channels, out_channels, strict=True)
        )

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the levels at their new widths."""
        return [convert(x) for convert, x in zip(self.convert, levels, strict=True)]


class Predictor(nn.Module):
    """Turn a task's maps of several scales into logits, one map for each and one for all.

    Each scale's map becomes one channel, enlarged bilinearly (corners aligned); a 1x1 convolution
    fuses them.

    Args:
        channels: of each scale's map.

    Shape:
        input: for each scale [B, channels[d], H_d, W_d]; output: a tuple of 1 + len(channels)
        tensors [B, 1, H, W], logits, the fused ones first, then those of each scale.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.trans = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in channels)
        self.fuse = nn.Conv2d(len(self.trans), 1, 1)

    def forward(
        self, maps: Sequence[torch.Tensor], size: Sequence[int]
    ) -> tuple[torch.Tensor, ...]:
        """Return the logits at a size (height, width)."""
        sides = [
            F.interpolate(reduce(x), list(size), mode="bilinear", align_corners=True)
            for reduce, x in zip(self.trans, maps, strict=True)
        ]
        return (self.fuse(torch.cat(sides, dim=1)), *sides)


class DFIDecoder(nn.Module):
    """Turn the levels of a backbone into logits of several tasks.

    The :class:`Converter` is followed, on each scale, by one :class:`SelectiveIntegration`, which
    sees all levels, and one :class:`TaskAdaptiveAttention`, which all tasks share; each task has a
    :class:`Predictor` over the scales.

    Args:
        in_channels: of each level.
        converted: channels of each level behind the converter.
        widths: channels on each scale; scale d has the size of level d.
        tasks: their names.
        selected: how many levels a task selects on each scale; None: all, unweighted.

    Shape:
        input: for each level [B, in_channels[i], H_i, W_i]; output: for each task the tuple of
        :class:`Predictor`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        converted: Sequence[int],
        widths: Sequence[int],
        tasks: Sequence[str],
        *,
        selected: int | None = 3,
    ) -> None:
        super().__init__()
        self.converter = Converter(in_channels, converted)
        self.dfims = nn.ModuleList(
            SelectiveIntegration(converted, width, tasks, level=level, selected=selected)
            for level, width in enumerate(widths)
        )
        self.tams = nn.ModuleList(TaskAdaptiveAttention(width) for width in widths)
        self.predictors = nn.ModuleDict({task: Predictor(widths) for task in tasks})

    def forward(
        self, levels: Sequence[torch.Tensor], size: Sequence[int], tasks: Sequence[str]
    ) -> dict[str, tuple[torch.Tensor, ...]]:
        """Return the logits of each of the tasks at a size (height, width)."""
        levels = self.converter(levels)
        maps: dict[str, list[torch.Tensor]] = {task: [] for task in tasks}
        for integrate, attend in zip(self.dfims, self.tams, strict=True):
            for task, x in integrate(levels, tasks).items():
                maps[task].append(attend(x))
        return {task: self.predictors[task](scales, size) for task, scales in maps.items()}

    def gates(
        self, levels: Sequence[torch.Tensor], tasks: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """Return the weights of the levels on each scale, [B, scales, levels], of each task."""
        levels = self.converter(levels)
        found: dict[str, list[torch.Tensor]] = {task: [] for task in tasks}
        for module in self.dfims:
            assert isinstance(module, SelectiveIntegration)
            for task, weights in module.gates(levels, tasks).items():
                found[task].append(weights)
        return {task: torch.stack(weights, dim=1) for task, weights in found.items()}
