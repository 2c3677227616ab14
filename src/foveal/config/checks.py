"""Checks of a config's values; each raises one sentence with the field's name."""

import math
from collections.abc import Iterable


def at_least(name: str, value: float, least: float) -> None:
    """Raise ValueError unless a value is at least ``least``."""
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")


def above_zero(name: str, value: float) -> None:
    """Raise ValueError unless a value is a number above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0, not {value!r}")


def within(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless a value lies in [low, high]."""
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], not {value!r}")


def check_scales(low: float, high: float) -> None:
    """Raise ValueError unless pictures can be scaled by factors from ``low`` to ``high``."""
    if not 0 < low <= high:
        raise ValueError(
            f"augment.min_scale must be above 0 and at most augment.max_scale {high!r}, not {low!r}"
        )


def several_scales(name: str, scales: Iterable[float]) -> tuple[float, ...]:
    """Return the scales at which pictures are looked at.

    Raises:
        TypeError: not several numbers.
        ValueError: none, or not above 0.
    """
    if isinstance(scales, str) or not isinstance(scales, Iterable):
        raise TypeError(f"{name} must be several numbers, such as (0.5, 1.0), not {scales!r}")
    found = tuple(float(scale) for scale in scales)
    if not found or not all(0 < scale < math.inf for scale in found):
        raise ValueError(f"{name} must be numbers above 0, not {list(found)}")
    if len(set(found)) < len(found):
        raise ValueError(f"{name} must be different numbers, not {list(found)}")
    return found
