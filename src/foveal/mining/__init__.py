"""Regions of objects, mined from a classifier that knows image labels alone.

After Zhou et al. 2020, arXiv:2006.07834 (Multi-Miner), of which no code was found: what the
abstract leaves open is ours.
"""

from foveal.config import MiningConfig
from foveal.mining.activations import with_activations
from foveal.mining.miner import MiningState, RegionMiner
from foveal.mining.modulator import Modulator, presence
from foveal.mining.result import REASONS, MiningResult

__all__ = [
    "REASONS",
    "MiningConfig",
    "MiningResult",
    "MiningState",
    "Modulator",
    "RegionMiner",
    "presence",
    "with_activations",
]
