"""Replays coordinate attention: layer, block and network."""

from fixture_adapters.core import DEEP_NARROW_NET, Adapter, Args, ModuleAdapter, Renamed, Tensors
from foveal.layers import CoordinateAttention
from foveal.official import coordinate_attention as official_coordinate
from foveal.official import load_official
from foveal.official.renaming import load_renamed


def _coordinate_layer(args: Args, state: Tensors) -> Renamed:
    if args.get("oup", args["inp"]) != args["inp"]:
        raise ValueError("the layer keeps its channels: oup must equal inp")
    # The network file's copy calls the reduction `groups`; nothing is grouped.
    layer = CoordinateAttention(args["inp"], args.get("reduction", args.get("groups", 32)))
    modules = official_coordinate.layer_modules(state)
    load_renamed(layer, state, modules, "CoordAtt")
    return layer, modules


def _coordinate_block(args: Args, state: Tensors) -> Renamed:
    block = load_official(state, stride=args["stride"])
    return block, official_coordinate.block_modules(expanded=args["expand_ratio"] != 1)


def _coordinate_network(args: Args, state: Tensors) -> Renamed:
    return load_official(state), official_coordinate.network_modules()


ADAPTERS: dict[str, Adapter] = {
    "coordatt.CoordAtt": ModuleAdapter(_coordinate_layer),
    "mbv2_ca.CoordAtt": ModuleAdapter(_coordinate_layer),
    "mbv2_ca.InvertedResidual": ModuleAdapter(_coordinate_block),
    "mbv2_ca.MBV2_CA": ModuleAdapter(_coordinate_network, DEEP_NARROW_NET),
}
