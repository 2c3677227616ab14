"""Selective integration: each picture and task chooses the backbone's levels that it uses."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from foveal.layers.group_norm import conv_norm, narrowed
from foveal.names import unknown


class SelectiveIntegration(nn.Module):
    """Bring the maps of several levels to one size and add those that a task selects: DFIM.

    Each level is resized bilinearly (corners aligned) to the size of one of them, and projected;
    the projections f_i are shared by the tasks. For each task

        u = gn(conv_1x1(relu(gn(conv_1x1(sum_i f_i)))))
        g = softmax(W2 relu(W1 mean(u)))
        y = relu(gn(conv_3x3(relu(sum of g_i f_i over the selected i))))

    where the mean is over all places, g has a weight for each level, and the ``selected`` largest
    of them count, as they are. So the choice is one of each picture and each task. Gradients
    flow through the kept weights, and through the softmax to all of them.

    Source: Liu, Hou, Cheng 2020, arXiv:2004.08595 (DFI), and the authors' code, whose ``DFIM`` this
    is; key names are theirs, with the task's name in place of its number.
    Differs from the official code: each picture of a batch is treated by itself (there the choices
    of one are applied to all); of equal weights the earlier level's wins; ``selected=None``.

    Args:
        in_channels: channels of each level's map.
        channels: C, of the result; the official network has 32 to 256.
        tasks: their names, no dots in them.
        level: index of the level whose size the result has.
        selected: how many levels count; None: all, unweighted, and there are no gates.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input: for each level [B, in_channels[i], H_i, W_i], any sizes >= 1; output: for each task
        [B, C, H, W], of the size of that level, all >= 0.

    Raises:
        ValueError: an impossible number of channels, no task, no such level, more selected levels
            than there are; in ``forward``, another number of levels or an unknown task.

    Example:
        >>> layer = SelectiveIntegration((8, 16), 16, ("edge", "saliency"), selected=1)
        >>> y = layer([torch.rand(2, 8, 10, 12), torch.rand(2, 16, 5, 6)])
        >>> {task: tuple(value.shape) for task, value in y.items()}
        {'edge': (2, 16, 10, 12), 'saliency': (2, 16, 10, 12)}
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        tasks: Sequence[str],
        *,
        level: int = 0,
        selected: int | None = 3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        levels = len(in_channels)
        if not levels or min(in_channels) < 1:
            raise ValueError(f"in_channels must be at least 1 for each level, not {in_channels!r}")
        if channels < 1:
            raise ValueError(f"channels must be at least 1, not {channels}")
        if isinstance(tasks, str) or not tasks or len(set(tasks)) < len(tasks):
            raise ValueError(f"tasks must be different names, at least one, not {tasks!r}")
        if not 0 <= level < levels:
            raise ValueError(f"level must be the index of one of {levels} levels, not {level!r}")
        if selected is not None and not 1 <= selected <= levels:
            raise ValueError(f"selected must be 1 to {levels} levels, or None, not {selected!r}")
        self.tasks = tuple(tasks)
        self.level = level
        self.selected = selected
        self.merge = nn.ModuleList(
            nn.Sequential(*conv_norm(width, channels, device=device, dtype=dtype))
            for width in in_channels
        )
        self.merge_convs = nn.ModuleDict()
        self.fcs = nn.ModuleDict()
        for task in self.tasks if selected is not None else ():
            self.merge_convs[task] = narrowed(channels, device=device, dtype=dtype)
            hidden = max(1, channels // 4)
            self.fcs[task] = nn.Sequential(
                nn.Linear(channels, hidden, bias=False, device=device, dtype=dtype),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, levels, bias=False, device=device, dtype=dtype),
            )
        self.convs = nn.ModuleDict(
            {
                task: nn.Sequential(*conv_norm(channels, channels, 3, device=device, dtype=dtype))
                for task in self.tasks
            }
        )

    def forward(
        self, levels: Sequence[torch.Tensor], tasks: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the integrated map of each task, [B, C, H, W]; of all tasks for None."""
        wanted = self._wanted(tasks)
        maps = self._projected(levels)
        total = sum(maps[1:], start=maps[0])
        result = {}
        for task in wanted:
            integrated = total
            if self.selected is not None:
                weights = largest(self._gates(total, task), self.selected)
                weights = weights[..., None, None, None]
                integrated = maps[0] * weights[:, 0]
                for x, weight in zip(maps[1:], weights.unbind(1)[1:], strict=True):
                    integrated = torch.addcmul(integrated, x, weight)
            result[task] = F.relu(self.convs[task](F.relu(integrated)))
        return result

    def gates(
        self, levels: Sequence[torch.Tensor], tasks: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the softmax weights of the levels before the selection, [B, levels], of each task.

        :func:`largest` tells which are selected.

        Raises:
            ValueError: the layer has no gates.
        """
        if self.selected is None:
            raise ValueError("there are no gates with selected=None: all levels count the same")
        wanted = self._wanted(tasks)
        maps = self._projected(levels)
        total = sum(maps[1:], start=maps[0])
        return {task: self._gates(total, task) for task in wanted}

    def _wanted(self, tasks: Sequence[str] | None) -> tuple[str, ...]:
        for task in tasks or ():
            if task not in self.tasks:
                raise ValueError(unknown("task", task, self.tasks))
        return self.tasks if tasks is None else tuple(tasks)

    def _projected(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return each level's map at the common size, [B, C, H, W]."""
        if len(levels) != len(self.merge):
            raise ValueError(f"the layer takes {len(self.merge)} levels, not {len(levels)}")
        like = levels[self.level]
        size = [like.shape[2], like.shape[3]]
        maps = []
        for i, project in enumerate(self.merge):
            x = levels[i]
            if i != self.level:
                x = F.interpolate(x, size, mode="bilinear", align_corners=True)
            maps.append(project(x))
        return maps

    def _gates(self, total: torch.Tensor, task: str) -> torch.Tensor:
        means = self.merge_convs[task](total).mean((2, 3))
        logits: torch.Tensor = self.fcs[task](means)
        return logits.softmax(1)


def largest(weights: torch.Tensor, selected: int) -> torch.Tensor:
    """Return the weights [B, L] with all but the ``selected`` largest of each row set to 0.

    Of equal weights the first counts as larger, on every device. A mask by comparisons, so the
    number of rows stays free under export.

    Example:
        >>> largest(torch.tensor([[0.1, 0.4, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25]]), 2)
        tensor([[0.0000, 0.4000, 0.3000, 0.0000],
                [0.2500, 0.2500, 0.0000, 0.0000]])
    """
    one, other = weights[:, :, None], weights[:, None, :]
    place = torch.arange(weights.shape[1], device=weights.device)
    earlier = place[None, :] < place[:, None]
    rank = ((other > one) | ((other == one) & earlier)).sum(2)
    return weights.masked_fill(rank >= selected, 0)
