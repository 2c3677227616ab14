"""How each class of the papers' official code is replayed, a file per system.

A new system is a file with a table ``ADAPTERS``, named in ``SYSTEMS``.
"""

from importlib import import_module

from fixture_adapters.core import Adapter

SYSTEMS = (
    "coordinate_attention",
    "deepvit",
    "dfi",
    "metrics",
    "mobilenext",
    "multi_miner",
    "online_label_smoothing",
    "panda",
    "spnet",
    "triplet_attention",
)

# The authors' class, as the metadata of a fixture names it -> how it is replayed.
ADAPTERS: dict[str, Adapter] = {
    name: adapter
    for system in SYSTEMS
    for name, adapter in import_module(f"fixture_adapters.{system}").ADAPTERS.items()
}
