"""The sandglass block: an inverted residual turned inside out."""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from timm import layers as timm_layers
from torch import nn

timm: Any = timm_layers  # annotated too sparsely for the type checker

_RELU6 = partial(nn.ReLU6, inplace=True)  # of a normalised map, which nothing else needs


class SandglassBlock(nn.Module):
    """Filter wide maps, squeeze and widen them between, add the shortcut at full width.

    An inverted residual keeps its shortcut on narrow maps and its spatial filter on wide ones; here
    both lie on the wide maps, and only the two pointwise convolutions between them are narrow:

        dw_before   3x3 depthwise, in_channels       BatchNorm, ReLU6, [attention "first"]
        pw_reduce   1x1, in_channels to hidden       BatchNorm
        pw_expand   1x1, hidden to out_channels      BatchNorm, ReLU6
        dw_after    3x3 depthwise, out_channels      BatchNorm, [attention "last"]; has the stride
        shortcut    the first channels of the input are added; nothing is clipped afterwards

    The middle and the last depthwise convolution are linear: what is narrow, and what receives the
    shortcut, loses nothing to an activation. MobileNeXt also uses the block without the first
    depthwise convolution (where it halves the map) and without both (where it only changes the
    channels, and ends with the ReLU6 of ``pw_expand``).

    Source: Zhou et al. 2020, arXiv:2007.02269, section 3; without depthwise convolutions: the
    authors' code only. Needs timm for ``DropPath`` and ``make_divisible``.
    Differs from the official code: the stride is always honoured (the authors' block of four
    convolutions ignores it unless the reduction is 2), shortcuts are added out of place, and a
    block of reduction 2 may have one.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the last depthwise convolution.
        reduction: t; the middle has in_channels // t channels, or, where that is less than a sixth
            of ``out_channels``, that sixth rounded to a multiple of 16.
        hidden_channels: channels of the middle instead of that rule.
        dw_before: begin with a depthwise convolution.
        dw_after: end with one.
        identity_fraction: share of the channels that the shortcut covers, in [0, 1], the first
            floor(in_channels * fraction): 1 / 3 of 96 is 32, whatever the rounding of 1 / 3. None
            is 1 where stride 1 and equal channels allow a shortcut, else 0.
        attention: called with channels, ``device`` and ``dtype``; makes a layer that keeps shapes.
        attention_position: after the ``first`` or the ``last`` depthwise convolution.
        drop_path: probability that a picture's branch is dropped in training, in the channels that
            the shortcut covers.
        dilation: of both depthwise convolutions.
        norm_layer: called with channels, ``device`` and ``dtype``.
        act_layer: called without arguments.
        device: where the parameters are made.
        dtype: type of the parameters.

    Shape:
        input [B, in_channels, H, W], any H, W >= 1; output
        [B, out_channels, ceil(H / stride), ceil(W / stride)], in the input's memory format and,
        under autocast too, in its type. In training, BatchNorm needs more than one value per
        channel: one picture of one pixel is refused.

    Raises:
        ValueError: a number out of range, a stride without ``dw_after``, a shortcut between unequal
            shapes, attention after a depthwise convolution that the block does not have.
        TypeError: channels, strides or the reduction that are no whole numbers, a fraction that is
            no number.

    Example:
        >>> SandglassBlock(96, 144, stride=2, reduction=6)(torch.rand(2, 96, 9, 7)).shape
        torch.Size([2, 144, 5, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        reduction: int = 6,
        *,
        hidden_channels: int | None = None,
        dw_before: bool = True,
        dw_after: bool = True,
        identity_fraction: float | None = None,
        attention: Callable[..., nn.Module] | None = None,
        attention_position: Literal["first", "last"] = "last",
        drop_path: float = 0.0,
        dilation: int = 1,
        norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d,
        act_layer: Callable[[], nn.Module] = _RELU6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = 1 if hidden_channels is None else hidden_channels
        _at_least_1(
            in_channels=in_channels,
            out_channels=out_channels,
            stride=stride,
            reduction=reduction,
            hidden_channels=hidden,
            dilation=dilation,
        )
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must lie in [0, 1), not {drop_path!r}")
        if stride > 1 and not dw_after:
            raise ValueError(
                f"stride {stride} needs dw_after=True: it is the last depthwise convolution's"
            )
        if attention_position not in ("first", "last"):
            raise ValueError(
                f"attention_position must be 'first' or 'last', not {attention_position!r}"
            )
        if attention and not (dw_before if attention_position == "first" else dw_after):
            switch = "dw_before" if attention_position == "first" else "dw_after"
            raise ValueError(
                f"attention after the {attention_position} depthwise convolution needs "
                f"{switch}=True"
            )
        if hidden_channels is None:
            hidden = _hidden_channels(in_channels, out_channels, reduction)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.identity_channels = _identity_channels(
            identity_fraction, in_channels, shortcut=stride == 1 and in_channels == out_channels
        )

        factory: dict[str, Any] = {"norm_layer": norm_layer, "device": device, "dtype": dtype}
        first = attention if attention_position == "first" else None
        last = attention if attention_position == "last" else None
        self.dw_before = (
            _depthwise(
                in_channels, dilation=dilation, act_layer=act_layer, attention=first, **factory
            )
            if dw_before
            else nn.Identity()
        )
        self.pw_reduce = _conv_norm(in_channels, hidden, 1, **factory)
        self.pw_expand = _conv_norm(hidden, out_channels, 1, act_layer=act_layer, **factory)
        self.dw_after = (
            _depthwise(out_channels, stride=stride, dilation=dilation, attention=last, **factory)
            if dw_after
            else nn.Identity()
        )
        self.drop_path = timm.DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [B, out_channels, ceil(H / stride), ceil(W / stride)]."""
        y: torch.Tensor = self.dw_after(self.pw_expand(self.pw_reduce(self.dw_before(x))))
        covered = self.identity_channels
        if covered == 0:
            return y.to(x.dtype)  # as the sums below: autocast leaves y in the lower type
        if covered < self.in_channels:
            added, rest = torch.split(y, [covered, self.out_channels - covered], dim=1)
            return torch.cat([x.narrow(1, 0, covered) + self.drop_path(added), rest], dim=1)
        total: torch.Tensor = x + self.drop_path(y)
        return total

    def extra_repr(self) -> str:
        """Say what the submodules do not: how many channels the shortcut covers."""
        return f"identity_channels={self.identity_channels}"


def _depthwise(channels: int, **kw: Any) -> nn.Sequential:
    return _conv_norm(channels, channels, 3, groups=channels, **kw)


def _conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    norm_layer: Callable[..., nn.Module],
    act_layer: Callable[[], nn.Module] | None = None,
    attention: Callable[..., nn.Module] | None = None,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> nn.Sequential:
    """Return a convolution without bias and what follows it, each under its own name."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
        device=device,
        dtype=dtype,
    )
    parts["bn"] = norm_layer(out_channels, device=device, dtype=dtype)
    if act_layer:
        parts["act"] = act_layer()
    if attention:
        parts["attn"] = attention(out_channels, device=device, dtype=dtype)
    return nn.Sequential(parts)


def _hidden_channels(in_channels: int, out_channels: int, reduction: int) -> int:
    """Return the authors' width of the middle: not less than a sixth of the output."""
    hidden = in_channels // reduction
    if hidden < out_channels / 6:
        hidden = timm.make_divisible(math.ceil(out_channels / 6), 16)
    return hidden


def _identity_channels(fraction: float | None, channels: int, *, shortcut: bool) -> int:
    """Return how many channels the shortcut covers, floor(channels / n) for a fraction 1 / n."""
    if fraction is None:
        return channels if shortcut else 0
    if not isinstance(fraction, (int, float)) or isinstance(fraction, bool):
        raise TypeError(f"identity_fraction must be a number, not {fraction!r}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"identity_fraction must lie in [0, 1], not {fraction!r}")
    if fraction > 0 and not shortcut:
        raise ValueError(
            f"identity_fraction {fraction!r} needs stride 1 and equal channels: leave it out, or 0"
        )
    # 49 * (1 / 49) is 0.999...: no fraction 1 / n of fewer than a million channels is that near.
    return math.floor(channels * fraction + 1e-6)


def _at_least_1(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"{name} must be a whole number, not {number!r}")
        if number < 1:
            raise ValueError(f"{name} must be at least 1, not {number!r}")
