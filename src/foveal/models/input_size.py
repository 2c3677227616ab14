"""Which picture sizes a network can take."""

from collections.abc import Mapping

from torch import nn

from foveal.models.counting import run_on_meta

# Patch sizes and total strides of the usual networks: sizes must be multiples of one of them.
_MULTIPLES = (2, 4, 7, 8, 12, 14, 16, 24, 28, 32, 48, 56, 64, 112, 128, 224)


def input_size_of(model: nn.Module) -> tuple[int, int, int]:
    """Return (C, H, W) of the pictures that a network is for.

    That is the size of its ``preprocess`` (a run's network has one), else that of its patch
    embedding, else that of timm's description, else 224 by 224, with the channels of its first
    convolution.
    """
    if (preprocess := getattr(model, "preprocess", None)) is not None:
        return (preprocess.channels, preprocess.image_size, preprocess.image_size)
    if sides := getattr(getattr(model, "patch_embed", None), "img_size", None):
        return (_first_channels(model), *sides)
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    described = config.get("input_size") if isinstance(config, Mapping) else None
    _, height, width = described or (3, 224, 224)
    return (_first_channels(model), height, width)


def checked_size(model: nn.Module, size: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Return (C, H, W) as given, or where None is given what the network is for.

    Raises:
        ValueError: it is given as something else.
    """
    if size is None:
        return input_size_of(model)
    if not isinstance(size, tuple | list) or [type(n) for n in size] != [int] * 3 or min(size) < 1:
        raise ValueError(f"input_size must be (C, H, W) of at least 1 each, not {size!r}")
    return (size[0], size[1], size[2])


def check_input_size(model: nn.Module, size: int, in_chans: int | None = None) -> None:
    """Do nothing if the network takes square pictures of this size.

    Args:
        model: any network that takes [B, C, H, W]; it is run on shapes only.
        size: side of the picture, pixels.
        in_chans: C; None asks the network.

    Raises:
        ValueError: it does not; the message names the nearest size that it takes.
    """
    if size >= 1 and _takes(model, size, in_chans):
        return
    best = nearest_valid_size(model, size, in_chans)
    if best is None:
        # It runs at no size on shapes alone: nothing is known, the real run will tell.
        return
    patch = max(getattr(getattr(model, "patch_embed", None), "patch_size", None) or (0,))
    raise ValueError(
        f"{type(model).__name__} cannot take pictures of {size} x {size} pixels: "
        f"the nearest size that it can take is {best}"
        + (
            f"; or build it for {size} by the model's argument img_size"
            if size and patch and size % patch == 0
            else ""
        )
    )


def nearest_valid_size(model: nn.Module, size: int, in_chans: int | None = None) -> int | None:
    """Return the size nearest to ``size`` that the network takes; None if no size tried works.

    Args:
        model: any network that takes [B, C, H, W].
        size: side of the picture, pixels.
        in_chans: C; None asks the network.
    """
    if size >= 1 and _takes(model, size, in_chans):
        return size
    own = _own_sizes(model)
    multiples = {m * k for m in _MULTIPLES for k in (size // m, size // m + 1)}
    candidates = sorted({s for s in multiples | own if s >= 1}, key=lambda s: abs(s - size))
    for candidate in candidates:
        if _takes(model, candidate, in_chans):
            return _refine(model, size, candidate, in_chans)
    return None


def _refine(model: nn.Module, invalid: int, valid: int, in_chans: int | None) -> int:
    """Return a valid size as near to ``invalid`` as halving the interval finds."""
    while abs(valid - invalid) > 1:
        middle = (valid + invalid) // 2
        if middle >= 1 and _takes(model, middle, in_chans):
            valid = middle
        else:
            invalid = middle
    return valid


def _takes(model: nn.Module, size: int, in_chans: int | None) -> bool:
    channels = in_chans or getattr(model, "in_chans", None) or _first_channels(model)
    try:
        run_on_meta(model, (channels, size, size))
    except Exception:  # networks refuse in many ways: assertions, shape errors, their own
        return False
    return True


def _first_channels(model: nn.Module) -> int:
    convs = (m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    return next(convs, 3)


def _own_sizes(model: nn.Module) -> set[int]:
    """Return the sizes that the network says it was made for."""
    sizes = getattr(getattr(model, "patch_embed", None), "img_size", None) or ()
    config = getattr(model, "default_cfg", None) or {}
    return {int(s) for s in (*sizes, *(config.get("input_size") or ())[1:])}
