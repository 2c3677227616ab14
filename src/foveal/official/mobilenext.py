"""Checkpoints of the authors' MobileNeXt (zhoudaquan/rethinking_bottleneck_design).

A sandglass block alone, and the whole network, whose checkpoints are mostly named after its older
name ``i2rnetv3``: same tensors, same keys. The positions in the authors' ``conv`` depend on which
depthwise convolutions a block has. Channels, classes and these are read from keys and shapes, so
networks of any width load; what the shapes do not tell is fixed by the authors' code or given as a
hint.

The authors' block of two depthwise convolutions ignores its stride, except in the first row. Where
rounding makes the channels of a row with a stride equal to those before (some widths below 0.14),
their network therefore keeps its map's size and adds a shortcut. The weights of such a network
belong to it, so it is rebuilt as it was, and this is logged; the networks that
:func:`foveal.models.mobilenext.mobilenext` builds honour the stride.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from foveal.layers import SandglassBlock
from foveal.models.mobilenext import ROWS, Block, MobileNeXt
from foveal.official.pictures import picture_config
from foveal.official.renaming import Modules, check_keys, load_renamed

DESCRIPTION = "zhoudaquan/rethinking_bottleneck_design (the sandglass block, MobileNeXt)"

State = Mapping[str, torch.Tensor]

_logger = logging.getLogger(__name__)

# Parts of the block with a depthwise convolution before and after, only after, or none ->
# position of each part's convolution in the authors' nn.Sequential; its BatchNorm is the next.
_LAYOUTS: dict[str, dict[str, int]] = {
    "both": {"dw_before": 0, "pw_reduce": 3, "pw_expand": 5, "dw_after": 8},
    "after": {"pw_reduce": 0, "pw_expand": 2, "dw_after": 5},
    "none": {"pw_reduce": 0, "pw_expand": 2},
}
_KEY = re.compile(r"(features\.\d+\.)?conv\.(\d+)\.\w+")
# What no sandglass block has: MobileNetV2 and V3 have a convolution at position 7, or sequences
# within the sequence.
_FOREIGN = re.compile(r"(features\.\d+\.)?conv\.(7|\d+\.\d+)\.\w+")


def recognise(state: State) -> bool:
    """Return whether the weights are a block's or the network's, complete or not."""
    if {key.partition(".")[0] for key in state} == {"conv"}:
        return _layout(state, "") is not None and not _is_foreign(state, "")
    prefixes = [f"features.{i}." for i in range(1, _blocks() + 1)]
    known = sum(_layout(state, prefix) is not None for prefix in prefixes)
    # Two in three: a key too many is to be named as such.
    return known > 2 * sum(_is_foreign(state, prefix) for prefix in prefixes)


def build(
    state: State,
    *,
    stride: int | None = None,
    shortcut: bool | None = None,
    identity_div: int = 1,
) -> nn.Module:
    """Return the foveal module with the authors' weights.

    Args:
        state: the authors' state_dict of a block or of the network.
        stride: at which a block alone runs, 1 or 2. A block with one depthwise convolution always
            has 2; with none, 1; with two, 1 is taken unless said otherwise (only the authors'
            block of ``expand_ratio`` 2 has 2 there, whatever the stride it was asked for).
        shortcut: whether a block alone adds its input. It does where stride 1 and equal channels
            allow it, unless the authors built it with ``expand_ratio`` 2 or ``keep_3x3``.
        identity_div: the shortcuts cover the first channels // identity_div; set in the authors'
            source, so no weight tells.

    Raises:
        ValueError: keys or shapes that are missing, too many or inconsistent; a hint that is
            impossible or without effect.
        TypeError: an ``identity_div`` that is no whole number.
    """
    if not isinstance(identity_div, int) or isinstance(identity_div, bool):
        raise TypeError(f"the hint identity_div must be a whole number, not {identity_div!r}")
    if identity_div < 1:
        raise ValueError(f"the hint identity_div must be at least 1, not {identity_div!r}")
    if any(key.startswith("features.") for key in state):
        if stride is not None or shortcut is not None:
            hint = "shortcut" if stride is None else "stride"
            raise ValueError(f"the hint {hint} is only for a block alone")
        return _network(state, identity_div)
    return _block(state, stride, shortcut, identity_div)


def block_modules(state: State) -> Modules:
    """Return the module names of a block alone."""
    return _named("", "", _layout(state, "") or "both")


def network_modules(state: State) -> Modules:
    """Return the module names of the whole network."""
    modules = {"features.0.0": "conv_stem", "features.0.1": "bn1", "classifier.1": "classifier"}
    for index, (row, number) in enumerate(_places(), start=1):
        theirs, ours = f"features.{index}.", f"blocks.{row}.{number}."
        modules |= _named(theirs, ours, _layout(state, theirs) or _usual(index))
    return modules


def _named(theirs: str, ours: str, layout: str) -> dict[str, str]:
    modules = {}
    for part, position in _LAYOUTS[layout].items():
        modules[f"{theirs}conv.{position}"] = f"{ours}{part}.conv"
        modules[f"{theirs}conv.{position + 1}"] = f"{ours}{part}.bn"
    return modules


def _places() -> list[tuple[int, int]]:
    """Return (row, number in it) of each block."""
    return [(r, n) for r, (_, _, repeats, _) in enumerate(ROWS) for n in range(repeats)]


def _blocks() -> int:
    return len(_places())


def _usual(index: int) -> str:
    """Return the layout that a block of the network has where no rounding makes channels equal."""
    row, number = _places()[index - 1]
    _, _, repeats, stride = ROWS[row]
    if number > 0 or row == 0 or (repeats == 1 and stride == 1):
        return "both"
    return "after" if stride > 1 else "none"


def _positions(state: State, prefix: str) -> set[int]:
    matches = (_KEY.fullmatch(key) for key in state if key.startswith(f"{prefix}conv."))
    return {int(match[2]) for match in matches if match and (match[1] or "") == prefix}


def _is_foreign(state: State, prefix: str) -> bool:
    matches = (_FOREIGN.fullmatch(key) for key in state if key.startswith(f"{prefix}conv."))
    return any(match and (match[1] or "") == prefix for match in matches)


def _layout(state: State, prefix: str) -> str | None:
    return _layout_of(_positions(state, prefix))


def _layout_of(positions: set[int]) -> str | None:
    """Return the layout that these positions belong to, even if some are missing."""
    if 2 in positions:
        return "after" if positions & {5, 6} else "none"
    if positions & {8, 9}:
        return "both"
    if 5 in positions:
        return "both" if 4 in positions else "after"
    return None


def _part(state: State, prefix: str, layout: str, part: str) -> torch.Size:
    """Return the shape of a part's convolution."""
    return state[f"{prefix}conv.{_LAYOUTS[layout][part]}.weight"].shape


def _channels(state: State, prefix: str, layout: str) -> dict[str, Any]:
    """Return what a block's shapes say of it, in the words of the layer and of the table alike."""
    hidden, in_channels = _part(state, prefix, layout, "pw_reduce")[:2]
    return {
        "in_channels": in_channels,
        "out_channels": _part(state, prefix, layout, "pw_expand")[0],
        "hidden_channels": hidden,
        "dw_before": layout == "both",
        "dw_after": layout != "none",
    }


def _block(
    state: State, stride: int | None, shortcut: bool | None, identity_div: int
) -> SandglassBlock:
    layout = _layout(state, "") or "both"
    modules = block_modules(state)
    with torch.device("meta"):
        template = SandglassBlock(
            8, 8, hidden_channels=8, dw_before=layout == "both", dw_after=layout != "none"
        )
        check_keys(template, state, modules, "a sandglass block")
    possible = {"both": (1, 2), "after": (2,), "none": (1,)}[layout]
    if stride is None:
        stride = possible[0]
    if stride not in possible:
        number = {"both": "two", "after": "one", "none": "no"}[layout]
        allowed = " or ".join(map(str, possible))
        raise ValueError(
            f"the hint stride of a block with {number} depthwise convolution"
            f"{'' if layout == 'after' else 's'} must be {allowed}, not {stride!r}"
        )
    channels = _channels(state, "", layout)
    can = layout == "both" and stride == 1 and channels["in_channels"] == channels["out_channels"]
    if shortcut and not can:
        raise ValueError(
            "the hint shortcut needs two depthwise convolutions, stride 1 and equal channels"
        )
    adds = can if shortcut is None else shortcut
    if identity_div > 1 and not adds:
        raise ValueError("the hint identity_div is for a shortcut, which this block does not have")
    block = SandglassBlock(
        **channels, stride=stride, identity_fraction=1 / identity_div if adds else 0.0
    )
    load_renamed(block, state, modules, "a sandglass block")
    return block


def _network(state: State, identity_div: int) -> MobileNeXt:
    modules = network_modules(state)
    layouts = [_layout(state, f"features.{i}.") or _usual(i) for i in range(1, _blocks() + 1)]
    flat = [
        Block(8, 8, 1, hidden_channels=8, dw_before=x == "both", dw_after=x != "none")
        for x in layouts
    ]
    with torch.device("meta"):
        check_keys(MobileNeXt(8, _rows(flat), num_classes=8), state, modules, "MobileNeXt")
    flat = [_table_line(state, index, layout) for index, layout in enumerate(layouts, start=1)]
    stem, in_chans = state["features.0.0.weight"].shape[:2]
    num_classes = state["classifier.1.weight"].shape[0]
    network = MobileNeXt(
        stem,
        _rows(flat),
        num_classes=num_classes,
        in_chans=in_chans,
        identity_fraction=1 / identity_div,
    )
    load_renamed(network, state, modules, "MobileNeXt")
    described: Any = network
    described.pretrained_cfg = described.default_cfg = picture_config(
        "mobilenext",
        in_chans,
        num_classes,
        first_conv="conv_stem",
        classifier="classifier",
        interpolation="bicubic",
    )
    return network


def _rows(flat: list[Block]) -> list[list[Block]]:
    rows: list[list[Block]] = [[] for _ in ROWS]
    for (row, _), block in zip(_places(), flat, strict=True):
        rows[row].append(block)
    return rows


def _table_line(state: State, index: int, layout: str) -> Block:
    """Return what the authors' code builds for weights of this layout at this place."""
    row, number = _places()[index - 1]
    reduction, _, repeats, first_stride = ROWS[row]
    stride = first_stride if number == 0 else 1
    channels = _channels(state, f"features.{index}.", layout)
    equal = channels["in_channels"] == channels["out_channels"]
    alone = repeats == 1 and stride == 1
    expected = "both" if equal else _usual(index)
    if layout != expected:
        raise ValueError(
            f"features.{index} has the layout of a block with stride "
            f"{2 if layout == 'after' else 1}{' and equal channels' if layout == 'both' else ''}, "
            "which is not that of the authors' network at this place"
        )
    if layout == "both" and row > 0 and stride > 1:
        _logger.warning(
            "features.%d runs at stride 1, as in the authors' code: its block ignores the stride "
            "of its row where its channels are equal",
            index,
        )
        stride = 1
    shortcut = equal and layout == "both" and row > 0 and not alone
    return Block(**channels, stride=stride, reduction=reduction, shortcut=shortcut)
