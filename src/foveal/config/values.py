"""Configs from plain values, as files and flags hold them."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any, Literal, TypeVar

from foveal.names import unknown

Scalar = int | float | bool | str | None
Argument = int | float | bool | str | None | list[Scalar]

T = TypeVar("T")


def updated(part: T, changes: Mapping[str, Any], prefix: str) -> T:
    """Return a part of a config with some other values, held to their types as a file's are.

    Args:
        part: such as ``SegmentConfig().sliding``.
        changes: field names to values.
        prefix: what stands before the names in messages, such as ``sliding.``.

    Raises:
        ValueError: an unknown field, or a wrong value.
    """
    own = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}  # type: ignore[arg-type]
    return typing.cast(T, build(type(part), {**own, **changes}, prefix))


def build(cls: type, values: Any, prefix: str) -> Any:
    """Return a config, or a part of one, from plain values.

    Args:
        cls: the dataclass.
        values: field names to values; absent fields keep their defaults.
        prefix: what stands before the names in messages, such as ``sliding.``.

    Raises:
        ValueError: an unknown or missing key, or a value of a wrong type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"config key {prefix.rstrip('.')!r} must hold keys, not {values!r}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise ValueError(unknown("config key", str(key), known, prefix))
    for f in dataclasses.fields(cls):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in values:
            raise ValueError(f"config key {prefix.rstrip('.')!r} needs {f.name!r}")
    return cls(**{k: convert(hints[k], v, prefix + k) for k, v in values.items()})


def convert(hint: Any, value: Any, key: str) -> Any:
    """Return ``value`` as the type that ``hint`` asks for, or say what would be right."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, key + ".")
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"config key {key!r} must hold keys, not {value!r}")
        return {str(k): convert(args[1], v, f"{key}.{k}") for k, v in value.items()}
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"config key {key!r} must be a list, not {value!r}")
        return origin(convert(args[0], v, f"{key}[{i}]") for i, v in enumerate(value))
    if origin is Literal:
        if value is False and "no" in args:  # YAML 1.1 reads a bare `no` as False
            return "no"
        if value not in args:
            raise ValueError(f"config key {key!r} must be {' or '.join(args)}, not {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in args:
            return None
        for member in sorted((a for a in args if a is not types.NoneType), key=_strictness):
            try:
                return convert(member, value, key)
            except ValueError:
                continue
        raise ValueError(f"config key {key!r} must be {hint}, not {value!r}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"config key {key!r} must be {hint.__name__}, not {value!r}")
    return value


def _strictness(hint: Any) -> int:
    """Order of a union's members: 1 is an int, True a bool, and both are no float."""
    order: list[Any] = [bool, int, float, str]
    return order.index(hint) if hint in order else len(order)


def check_parts(config: Any) -> None:
    """Hold parts of a config to their classes, and arguments of other functions to plain values.

    Tuples among those become lists, as they will be when the run's file is read.
    """
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(hint) and not isinstance(value, typing.cast(type, hint)):
            wanted = typing.cast(type, hint).__name__
            raise TypeError(f"{name} must be a foveal.config.{wanted}, not {value!r}")
        if typing.get_origin(hint) is dict:
            object.__setattr__(config, name, convert(hint, value, name))
