"""Re-attention in place of the attention of a finished vision transformer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from timm.layers.attention import Attention
from torch import nn

from foveal.layers import ReAttention
from foveal.layers.re_attention import ThetaInit
from foveal.models.counting import count
from foveal.models.input_size import checked_size
from foveal.names import nearest, unknown
from foveal.surgery.places import RULES, Trace, Where, check_where, matching
from foveal.surgery.report import InsertionReport

REATTENTION = "reattention"

_ARGUMENTS = ("norm", "transform_scale", "save_memory")


@dataclass(frozen=True)
class AttentionPlace:
    """An attention module.

    Attributes:
        name: in ``model.named_modules()``.
        num_heads: H.
        tokens: N, at the report's input size.
    """

    name: str
    num_heads: int
    tokens: int


class ReplacementReport(InsertionReport):
    """What the replacement of attention did: as of an insertion, but in place of modules."""

    relation = "in place of"

    def _put_in(self, name: str, layer: nn.Module) -> Callable[[], None]:
        old = self._model.get_submodule(name)
        self._set(name, layer)
        return lambda: self._set(name, old)

    def _set(self, name: str, module: nn.Module) -> None:
        """Put a module at a place, in the mode of the one there: they share all but that."""
        module.training = self._model.get_submodule(name).training
        self._model.set_submodule(name, module)

    @contextmanager
    def _without_layers(self) -> Iterator[None]:
        self.undo()
        try:
            yield
        finally:
            self.apply()

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [(self.relation, "heads", "tokens", "new parameters")]
        for place, layer in zip(self.places, self.layers, strict=True):
            new = [p for module in _new_parts(layer) for p in module.parameters()]
            added = sum(p.numel() for p in new)
            rows.append((place.name, str(place.num_heads), str(place.tokens), f"{added:,d}"))
        return rows


def replace_attention(
    model: nn.Module,
    *,
    where: Where,
    identity: bool = False,
    input_size: tuple[int, int, int] | None = None,
    **layer_args: Any,
) -> ReplacementReport:
    """Put re-attention in place of attention modules, in place; their weights stay.

    Queries, keys, values and the projection are the same modules as before; new are theta, its
    biases and the norm (keys ``reatten_matrix.*``, ``var_norm.*``, ``tokens``).

    Args:
        model: any network whose attention is timm's ``Attention``, such as timm's ViT and DeiT, and
            not one with rotary or relative positions, such as EVA and BEiT.
        where: which attention modules: a pattern over ``model.named_modules()`` in which ``*`` does
            not cross a dot (``blocks.[6-9].attn``), a function (name, module) -> bool, or
            ``blocks``, all of them.
        identity: start with theta = I and without norm, so that the network computes what it
            computed before until it is trained. A ``norm`` of your own makes the start only
            approximate, and the report says so.
        input_size: (C, H, W) of the pictures; None takes what the network says of itself.
        **layer_args: ``norm``, ``transform_scale`` and ``save_memory`` of
            :class:`foveal.layers.ReAttention`.

    Raises:
        ValueError: no match, a match that is no such attention, a value that the layer refuses, or
            a network that does not run at ``input_size``.
        TypeError: an argument that the layer does not have, or ``where`` is neither text nor a
            function.
    """
    if not isinstance(identity, bool):
        raise TypeError(f"identity must be True or False, not {identity!r}")
    check_where(where)
    for key in layer_args:
        if key not in _ARGUMENTS:
            raise TypeError(unknown(f"{REATTENTION} argument", key, _ARGUMENTS))
        if key != "norm" and not isinstance(layer_args[key], bool):
            raise TypeError(f"{key} must be True or False, not {layer_args[key]!r}")
    given = {"norm": "none"} | layer_args if identity else layer_args
    size = checked_size(model, input_size)
    names = _attention_modules(model, where)
    places = _places(model, names, size)
    before = count(model, size)
    theta_init: ThetaInit = "identity" if identity else "conv"
    layers = tuple(
        ReAttention.replacing(model.get_submodule(place.name), theta_init=theta_init, **given)
        for place in places
    )
    report = ReplacementReport(
        model,
        layer=REATTENTION,
        layer_args=layer_args,
        where=where if isinstance(where, str) else getattr(where, "__name__", repr(where)),
        identity=identity,
        input_size=size,
        places=places,
        layers=layers,
        before=before,
        notes=_notes(identity, given),
    )
    try:
        report.apply()
        report.after = count(model, size)
    except BaseException:
        report.undo()
        raise
    return report


def _is_plain(module: nn.Module) -> bool:
    """Tell whether a module computes what timm's ``Attention`` does."""
    return isinstance(module, Attention) and type(module).forward is Attention.forward


def _attention_modules(model: nn.Module, where: Where) -> list[str]:
    """Return the names of the attention modules that ``where`` names.

    Raises:
        ValueError: there are none, or others are among them.
    """
    kind = type(model).__name__
    known = [name for name, module in model.named_modules() if _is_plain(module)]
    if where == "blocks":
        if not known:
            found = sorted({type(m).__name__ for m in model.modules() if "Att" in type(m).__name__})
            seen = f"; it has {', '.join(found)}" if found else ""
            raise ValueError(
                f"where='blocks': {kind} has no attention that re-attention can replace, timm's "
                f"Attention{seen}"
            )
        for name in known:
            _check_parts(name, model.get_submodule(name))
        return known
    if where in RULES:
        raise ValueError(
            f"where={where!r} is a rule for layers of maps: re-attention takes the place of "
            "attention modules, which 'blocks' (all of them) or a pattern names"
        )
    names = matching(model, where)
    for name in names:
        module = model.get_submodule(name)
        if isinstance(module, ReAttention) and module.apply_transform:
            raise ValueError(f"{name!r} is re-attention already")
        if not _is_plain(module):
            inside = [other for other in known if other.startswith(f"{name}.")]
            close = inside or nearest(name, known, n=3)
            hint = f": did you mean {', '.join(map(repr, close))}?" if close else ""
            raise ValueError(
                f"{name!r} ({type(module).__name__}) is no attention that re-attention can "
                f"replace, timm's Attention{hint}"
            )
        _check_parts(name, module)
    return names


def _check_parts(name: str, attention: nn.Module) -> None:
    """Raise ValueError if an attention has parts that would be lost."""
    for part in ("gate", "norm"):
        if not isinstance(getattr(attention, part, None), nn.Identity | None):
            raise ValueError(f"{name!r} has a {part}, which re-attention does not have")


def _places(
    model: nn.Module, names: list[str], size: tuple[int, int, int]
) -> tuple[AttentionPlace, ...]:
    """Return the attention modules in the order in which they run.

    Raises:
        ValueError: one is not run.
    """
    trace = Trace.of(model, size)
    order = {call.name: i for i, call in enumerate(trace.calls)}
    for name in names:
        if name not in order:
            raise ValueError(f"{name!r} is not run by the network in evaluation")
    places = []
    for name in sorted(names, key=order.__getitem__):
        attention: Any = model.get_submodule(name)
        tokens = trace.by_module[name][0].input.shape[1]
        places.append(AttentionPlace(name, attention.num_heads, tokens))
    return tuple(places)


def _new_parts(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    own: Any = layer
    return own.reatten_matrix, own.var_norm


def _notes(identity: bool, given: dict[str, Any]) -> tuple[str, ...]:
    notes = []
    if identity and given["norm"] != "none":
        notes.append(
            f"norm={given['norm']!r} changes the maps from the first step on: the start is near "
            "the trained network only in theta, not in what it computes"
        )
    if identity and given.get("transform_scale"):
        notes.append("transform_scale multiplies the maps by the scale, also at the start")
    return tuple(notes)
