"""Replays MobileNeXt: sandglass block and network."""

import torch

from fixture_adapters.core import DEEP_NARROW_NET, Adapter, Args, ModuleAdapter, Renamed, Tensors
from foveal.layers import SandglassBlock
from foveal.models import create_model
from foveal.official import load_official
from foveal.official import mobilenext as official_mobilenext

# How the fixtures of MobileNeXt name what the others name differently.
_SHORT_NAMES = {
    "multiplier": "input/grad_out",
    "input_gradient": "grad/x",
    "buffers": "buffer_train/",
}


def _sandglass_block(args: Args, state: Tensors) -> Renamed:
    """Build what the authors' block is for its arguments, which is not always what they ask for."""
    stride, ratio, keep = args["stride"], args["expand_ratio"], args.get("keep_3x3", False)
    full = ratio != 2 and (args["inp"] == args["oup"] or keep)  # ignores its stride
    adds = full and not keep
    hints = {"identity_div": args["identity_div"]} if adds and "identity_div" in args else {}
    block = load_official(state, stride=1 if full else stride, shortcut=adds, **hints)
    if (block.in_channels, block.out_channels) != (args["inp"], args["oup"]):
        raise ValueError("the channels are not those of the arguments")
    # Ours of the same arguments has the same middle.
    with torch.device("meta"):
        ours = SandglassBlock(args["inp"], args["oup"], 1, ratio).pw_reduce
    if (
        ours.get_submodule("conv").weight.shape
        != block.pw_reduce.get_submodule("conv").weight.shape
    ):
        raise ValueError("the middle is not as wide as the rule for the arguments says")
    return block, official_mobilenext.block_modules(state)


def _mobilenext(args: Args, state: Tensors) -> Renamed:
    network = load_official(state, identity_div=args.get("identity_div", 1))
    if args.get("num_classes", network.num_classes) != network.num_classes:
        raise ValueError("the weights do not follow num_classes")
    if "width_mult" in args:
        sizes = {"num_classes": network.num_classes, "in_chans": network.in_chans}
        with torch.device("meta"):
            ours = create_model("mobilenext", width=args["width_mult"], **sizes).state_dict()
        if {k: v.shape for k, v in ours.items()} != {
            k: v.shape for k, v in network.state_dict().items()
        }:
            raise ValueError("the weights do not follow width_mult")
    return network, official_mobilenext.network_modules(state)


ADAPTERS: dict[str, Adapter] = {
    "SGBlock": ModuleAdapter(_sandglass_block, **_SHORT_NAMES),
    "MXNet": ModuleAdapter(_mobilenext, DEEP_NARROW_NET, **_SHORT_NAMES),
}
