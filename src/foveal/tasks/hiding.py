"""Pictures with something hidden, for a second loss of classifiers that regions are mined from.

A miner shows its classifier pictures with parts erased, such as it never saw in training unless it
learns from some: with cells of a grid hidden (Singh and Lee 2017, arXiv:1704.04232), or what the
network itself would mine.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from foveal.mining import MiningConfig, RegionMiner, with_activations

_STEPS = 2  # after so many a class counts as hidden


class HiddenCells(nn.Module):
    """Hide cells of a grid; the picture still shows what it showed.

    Args:
        cells: in each row and column of the grid.
        probability: largest one with which a cell is hidden; each picture's is drawn from 0 to it.
    """

    def __init__(self, cells: int, probability: float) -> None:
        super().__init__()
        self.cells, self.probability = cells, probability

    def forward(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return pictures [B, C, H, W] with some cells 0, the mean colour, and the same targets."""
        # Drawn on the CPU, so that all devices hide the same.
        probability = self.probability * torch.rand(len(x), 1, 1, 1)
        hidden = torch.rand(len(x), 1, self.cells, self.cells) < probability
        mask = interpolate(hidden.float(), x.shape[2:], mode="nearest-exact").bool()
        return x.masked_fill(mask.to(x.device), 0), target


class HiddenRegions(nn.Module):
    """Hide what is mined for one class of each picture, with the weights of the epoch's beginning.

    One or two steps of mining are hidden, as many as there are up to a number that is drawn. After
    two the class is no longer there for the loss: to call a hidden object present would teach the
    network to find it in the background.

    Args:
        model: the network; a copy of it mines, which :meth:`refresh` brings up to date. The copy is
            a part of this module and so of a run's state.
        image_size: side of the pictures, pixels.

    Raises:
        ValueError: the network has no class activation maps.
    """

    def __init__(self, model: nn.Module, image_size: int) -> None:
        super().__init__()
        network = copy.deepcopy(model).requires_grad_(False)
        weight = next(model.parameters())
        channels = getattr(model, "default_cfg", {}).get("input_size", (3,))[0]
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(1, channels, image_size, image_size, generator=generator).to(weight)
        config = MiningConfig(mode="absolute", max_steps=_STEPS)
        self.miner = RegionMiner(with_activations(network, x), config)

    def refresh(self, model: nn.Module) -> None:
        """Mine from now on with the weights that a network has."""
        self.miner.model.network.load_state_dict(model.state_dict())

    def forward(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return pictures [B, C, H, W] with a region 0, and what they still show.

        Args:
            x: pictures, [B, C, H, W].
            target: 0 and 1, [B, K].
        """
        # Of one class of each picture; of pictures without any nothing.
        order = torch.rand(target.shape).to(target.device) * (target > 0)
        chosen = (order == order.amax(1, keepdim=True)) & (order > 0)
        most = torch.randint(1, _STEPS + 1, (len(x),)).to(x.device)
        found = self.miner.mine(x, chosen)
        picture, label = found.pairs.unbind(1)
        steps = found.steps.clamp(max=most[picture])
        taken = (found.step_map > 0) & (found.step_map <= most[picture, None, None])
        mask = torch.zeros_like(x[:, 0], dtype=torch.bool)
        mask[picture] = taken
        target = target.clone()
        target[picture, label] = torch.where(steps < _STEPS, target[picture, label], 0)
        return x.masked_fill(mask[:, None], 0), target
