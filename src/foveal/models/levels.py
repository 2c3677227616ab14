"""Feature maps by their level, checked before a network is built."""

from collections.abc import Sequence


def check_out_indices(out_indices: int | Sequence[int] | None, levels: int) -> None:
    """Do nothing if a network with so many feature maps has those that are asked for.

    Args:
        out_indices: as timm takes it: indices, negative ones from the last; or how many of the last
            levels; None for the default.
        levels: how many there are.

    Raises:
        ValueError: it has not.
    """
    if isinstance(out_indices, int):
        valid = 1 <= out_indices <= levels
    else:
        valid = out_indices is None or all(-levels <= i < levels for i in out_indices)
    if not valid:
        raise ValueError(
            f"out_indices must be a number of levels up to {levels} or indices from 0 to "
            f"{levels - 1}, not {out_indices!r}"
        )
