"""Replays triplet attention: layer, blocks and networks."""

from collections.abc import Mapping

from torch import nn

from fixture_adapters.core import (
    DEEP_NARROW_NET,
    Adapter,
    Args,
    ModuleAdapter,
    Renamed,
    Tensors,
    check_arguments,
)
from foveal.layers import TripletAttention
from foveal.official import load_official
from foveal.official import triplet_attention as official_triplet


def _triplet(args: Args, state: Tensors) -> Renamed:
    """Build any class of the triplet repository: all but a block's stride is in its weights."""
    hints = {"stride": args["stride"]} if "stride" in args else {}
    renamed: Mapping[str, str] = {}
    if official_triplet.recognise(state):
        module = load_official(state, **hints)
        renamed = official_triplet.modules(state)
    elif "fc.weight" in state:  # the authors' baseline: any ResNet has these keys
        module = official_triplet.resnet(state)
    else:
        module = official_triplet.resnet_block(state, args.get("stride", 1))
    _check(args, module)
    return module, renamed


def _check(args: Args, module: nn.Module) -> None:
    """Compare what was read from the weights with the arguments that are given."""
    layers = [m for m in module.modules() if isinstance(m, TripletAttention)]
    for key, attentive in (("use_triplet_attention", True), ("att_type", "TripletAttention")):
        if key in args and (args[key] == attentive) != bool(layers):
            raise ValueError(f"the weights do not follow {key}")
    for layer in layers:
        read = {
            "kernel_size": layer.cw.get_submodule("conv.conv").kernel_size[0],
            "no_spatial": layer.hw is None,
        }
        check_arguments(args, read)


ADAPTERS: dict[str, Adapter] = {
    "triplet_attention.TripletAttention": ModuleAdapter(_triplet),
    "MODELS.triplet_attention.TripletAttention": ModuleAdapter(_triplet),
    "MODELS.resnet.BasicBlock": ModuleAdapter(_triplet),
    "MODELS.resnet.Bottleneck": ModuleAdapter(_triplet),
    "MODELS.resnet.ResNet": ModuleAdapter(_triplet),
    "MODELS.resnet.ResidualNet": ModuleAdapter(_triplet),
    "MODELS.mobilenet.InvertedResidual": ModuleAdapter(_triplet),
    "MODELS.mobilenet.TripletAttention_MobileNetV2": ModuleAdapter(_triplet, DEEP_NARROW_NET),
}
