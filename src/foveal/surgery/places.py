"""Where a layer goes: module names, patterns and rules, looked up in a network at work.

The network is run once on shapes alone, and what runs where is written down. So the rules know a
residual block by what it does (it adds two maps), whichever library it comes from.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from timm.layers.drop import DropPath
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import StochasticDepth

from foveal.models.counting import run_on_meta
from foveal.names import nearest
from foveal.surgery.inserted import Inserted, bypassing, inserted_layers

Where = str | Callable[[str, nn.Module], bool]

_SUMS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_IDLE = (nn.Identity, nn.modules.dropout._DropoutNd, DropPath, StochasticDepth)  # in evaluation
_LARGE = 224  # pixels; rules are looked up at least at this size, where a gate is no map


@dataclass(frozen=True)
class Place:
    """A module after which a layer can go.

    Attributes:
        name: in ``model.named_modules()``.
        channels: C of its output.
        size: (H, W) of its output.
    """

    name: str
    channels: int
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Call:
    """One run of a module. Tensors are on the meta device and take no memory."""

    name: str
    input: Any
    input_version: int
    output: Any
    output_version: int


@dataclass(eq=False)
class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What a network does with one input: calls in the order in which they end, and joins."""

    calls: list[_Call] = field(default_factory=list)
    sums: dict[str, tuple[int, ...]] = field(default_factory=dict)
    concatenations: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tokens: bool = False
    _running: list[tuple[str, Any, int]] = field(default_factory=list)  # name, input, its version

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._running:
            return result
        if func in _SUMS and all(isinstance(arg, torch.Tensor) for arg in args[:2]):
            a, b = args[:2]
            if a.shape == b.shape and a.ndim == 4 and a.shape[2] * a.shape[3] > 1:
                self.sums[self._running[-1][0]] = tuple(a.shape)
            self.tokens |= a.shape == b.shape and a.ndim == 3
        elif func is torch.ops.aten.cat.default and result.ndim == 4 and args[1:] == (1,):
            self.concatenations[self._running[-1][0]] = tuple(result.shape)
        return result

    @classmethod
    def of(cls, model: nn.Module, input_size: tuple[int, int, int]) -> "Trace":
        """Run the model on shapes alone and write down what happens.

        Raises:
            ValueError: it does not run so.
        """
        trace = cls()
        handles = []
        for name, module in _modules(model):
            handles.append(module.register_forward_pre_hook(trace._enter(name)))
            handles.append(module.register_forward_hook(trace._leave(name), prepend=True))
        try:
            with trace, bypassing(inserted_layers(model).values()):
                run_on_meta(model, input_size)
        except Exception as error:  # networks fail in ways of their own
            reason = str(error).strip().split("\n")[0][:200]
            raise ValueError(
                f"{type(model).__name__} does not run on shapes of an input {list(input_size)} "
                f"(give the right one as input_size): {reason}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        return trace

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, args: Any) -> None:
            x = args[0] if args else None
            self._running.append((name, x, _version(x)))

        return hook

    def _leave(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.calls.append(_Call(*self._running.pop(), output, _version(output)))

        return hook

    @cached_property
    def by_module(self) -> dict[str, list[_Call]]:
        """The calls of each module that was called."""
        calls: dict[str, list[_Call]] = {}
        for call in self.calls:
            calls.setdefault(call.name, []).append(call)
        return calls

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a module's output in its last call, if that is one tensor."""
        calls = self.by_module.get(name)
        return _shape(calls[-1].output) if calls else None


def find_places(model: nn.Module, where: Where, input_size: tuple[int, int, int]) -> list[Place]:
    """Return the modules that ``where`` names, in the order in which they run.

    Args:
        model: any network; it is not changed.
        where: a rule (``blocks``, ``stages``, ``expand``), a pattern over module names in which
            ``*`` does not cross a dot, or a function (name, module) -> bool. In a network that has
            a ``backbone``, rules look at that alone.
        input_size: (C, H, W) of an input that the network takes.

    Raises:
        ValueError: nothing matches, matches are nested, or an output is not one map [B, C, H, W].
        TypeError: ``where`` is neither text nor a function.
    """
    check_where(where)
    trace = Trace.of(model, input_size)
    if isinstance(where, str) and where in RULES:
        names = RULES[where](model, _trace_for_rules(model, trace, input_size), where)
    else:
        names = matching(model, where)
    order = {call.name: i for i, call in enumerate(trace.calls)}
    names.sort(key=lambda name: order.get(name, -1))
    _check_not_nested(names)
    larger = _trace_at_another_size(model, input_size)
    return [_place(model, trace, larger, name) for name in names]


def _trace_for_rules(model: nn.Module, trace: Trace, input_size: tuple[int, int, int]) -> Trace:
    """Return a trace at a size at which a gate is no map, where the network takes one."""
    channels, height, width = input_size
    if min(height, width) >= _LARGE:
        return trace
    try:
        return Trace.of(model, (channels, max(height, _LARGE), max(width, _LARGE)))
    except ValueError:
        return trace


def _trace_at_another_size(model: nn.Module, input_size: tuple[int, int, int]) -> Trace | None:
    """Return a trace at another height and width; None if the network takes one size only."""
    channels, height, width = input_size
    try:
        return Trace.of(model, (channels, 2 * height, 3 * width))
    except ValueError:
        return None


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the named modules, the network itself and inserted layers left out."""
    inserted: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, Inserted):
            inserted += (f"{name}.",)
        elif name and not name.startswith(inserted):
            yield name, module


# Rules


def _blocks(model: nn.Module, trace: Trace, rule: str) -> list[str]:
    """Return the residual blocks, or in a network without any the modules that concatenate.

    A residual block is a module that adds two maps and returns them, the outermost where there is
    one in another; others of its class are blocks too, such as those whose stride leaves no
    shortcut. Of modules that concatenate, the innermost are the blocks. Heads on a backbone add and
    concatenate too, up to the logits themselves: they have no blocks.
    """
    modules = dict(_modules(model))
    if isinstance(getattr(model, "backbone", None), nn.Module):
        modules = {name: m for name, m in modules.items() if name.startswith("backbone.")}
    adding = [n for n, shape in trace.sums.items() if n in modules and trace.shape(n) == shape]
    if adding:
        found = _of_their_classes(modules, trace, adding)
        return [a for a in found if not any(a.startswith(f"{b}.") for b in found)]
    if concatenating := [name for name in trace.concatenations if name in modules]:
        found = _of_their_classes(modules, trace, concatenating)
        return [a for a in found if not any(b.startswith(f"{a}.") for b in found)]
    kind = type(model).__name__
    if trace.tokens:
        raise ValueError(
            f"where={rule!r}: the blocks of {kind} pass streams of tokens [B, N, C] on, and this "
            "layer needs maps [B, C, H, W]: name modules that return maps, by a pattern"
        )
    names = ", ".join(name for name in modules if _parent(name) not in modules)
    raise ValueError(
        f"where={rule!r}: {kind} has no blocks that add or concatenate maps: name modules by a "
        f"pattern; the outermost are {names}"
    )


def _of_their_classes(
    modules: dict[str, nn.Module], trace: Trace, names: Iterable[str]
) -> list[str]:
    """Return the modules that are run, return one tensor and are of the class of one of these."""
    kinds = {type(modules[name]) for name in names}
    return [name for name, m in modules.items() if type(m) in kinds and trace.shape(name)]


def _stages(model: nn.Module, trace: Trace, rule: str) -> list[str]:
    """Return the last block of each stage: of each run of blocks side by side of one shape.

    Where the module around those blocks returns more than its last block does, as in DenseNet, it
    is the stage's end.
    """
    order = {call.name: i for i, call in enumerate(trace.calls)}
    blocks = sorted(_blocks(model, trace, rule), key=lambda name: order[name])
    runs = groupby(blocks, key=lambda name: (_parent(name), trace.shape(name)))
    lasts = [[*run][-1] for _, run in runs]
    parents = [_parent(name) for name in lasts]
    return [
        parent if parents.count(parent) == 1 and _returns_more(trace, parent, last) else last
        for last, parent in zip(lasts, parents, strict=True)
    ]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _returns_more(trace: Trace, parent: str, last: str) -> bool:
    """Tell whether ``parent`` returns a map of the same size as ``last`` with other channels."""
    around, own = trace.shape(parent), trace.shape(last)
    if around is None or own is None or len(around) != 4:
        return False
    return around[2:] == own[2:] and around[1] != own[1]


def _expand(model: nn.Module, trace: Trace, rule: str) -> list[str]:
    """Return, in each residual block, the end of its widest convolution: its norm or activation.

    Of several equally wide ones the last depthwise, else the last: in an inverted residual that is
    before the projection, also where nothing is expanded.
    """
    modules = dict(_modules(model))
    ends = (_widest(modules, trace, block) for block in _blocks(model, trace, rule))
    names = [name for name in ends if name is not None]
    if not names:
        raise ValueError(
            f"where={rule!r}: the blocks of {type(model).__name__} have no convolutions: name "
            "modules by a pattern"
        )
    return names


def _widest(modules: dict[str, nn.Module], trace: Trace, block: str) -> str | None:
    convolutions = _main_branch(trace, block, _convolutions(modules, trace, block))
    if not convolutions:
        return None
    most = max(call.output.shape[1] for call in convolutions)
    widest = [call for call in convolutions if call.output.shape[1] == most]
    depthwise = [call for call in widest if modules[call.name].groups == most > 1]
    end = (depthwise or widest)[-1]
    while (after := _after(modules, trace, end)) is not None:
        end = after
    return end.name


def _convolutions(modules: dict[str, nn.Module], trace: Trace, block: str) -> list[_Call]:
    return [
        call
        for call in trace.calls
        if call.name.startswith(f"{block}.")
        and isinstance(modules[call.name], nn.Conv2d)
        and len(shape := _shape(call.output) or ()) == 4
        and shape[2] * shape[3] > 1  # a gate's convolutions see one pixel
    ]


def _main_branch(trace: Trace, block: str, convolutions: list[_Call]) -> list[_Call]:
    """Return those of a block's convolutions that are not in its shortcut.

    Branches begin with the modules that take the block's input. A convolution outside of these
    belongs to the first, and the branch with most convolutions is the main one.
    """
    whole = trace.by_module[block][0]
    entries: list[str] = []
    for call in reversed(trace.calls):  # a module ends after those inside it
        takes_it = call.input is not None and call.input is whole.input
        takes_it &= call.input_version == whole.input_version
        within_another = call.name.startswith(tuple(f"{entry}." for entry in entries))
        if takes_it and call.name.startswith(f"{block}.") and not within_another:
            entries.insert(0, call.name)
    branches: dict[str, list[_Call]] = {entry: [] for entry in entries or [block]}
    first = next(iter(branches))
    for call in convolutions:
        own = (e for e in entries if call.name == e or call.name.startswith(f"{e}."))
        branches[next(own, first)].append(call)
    return max(branches.values(), key=len)


def _after(modules: dict[str, nn.Module], trace: Trace, call: _Call) -> _Call | None:
    """Return the call of the norm or activation that takes this call's output as it is."""
    position = trace.calls.index(call)
    for other in trace.calls[position + 1 :]:
        unchanged = other.input is call.output and other.input_version == call.output_version
        if (
            unchanged
            and not isinstance(modules[other.name], _IDLE)
            and not any(isinstance(m, _WEIGHTED) for m in _inside(modules, other.name))
            and len(trace.by_module[other.name]) == 1
            and _shape(other.output) == _shape(call.output)
        ):
            return other
    return None


def _inside(modules: dict[str, nn.Module], name: str) -> Iterator[nn.Module]:
    """Yield a module and those in it, inserted layers left out."""
    return (m for inner, m in modules.items() if f"{inner}.".startswith(f"{name}."))


RULES: dict[str, Callable[[nn.Module, Trace, str], list[str]]] = {
    "blocks": _blocks,
    "stages": _stages,
    "expand": _expand,
}


# Patterns and checks


def check_where(where: Where) -> None:
    """Raise TypeError unless ``where`` is text or a function."""
    if isinstance(where, type):
        raise TypeError(
            f"where must be a rule, a pattern or a function, not a class: for all modules of one, "
            f"write lambda name, module: isinstance(module, {where.__name__})"
        )
    if not isinstance(where, str) and not callable(where):
        kind = type(where).__name__
        raise TypeError(f"where must be a rule, a pattern or a function, not {kind}")


def matching(model: nn.Module, where: Where) -> list[str]:
    """Return the names of the modules that a pattern or a function chooses.

    Raises:
        ValueError: there are none; the message has the nearest names.
    """
    modules = dict(_modules(model))
    if callable(where):
        names = [name for name, module in modules.items() if where(name, module)]
        if not names:
            raise ValueError(f"the function where chose no module of {type(model).__name__}")
        return names
    parts = where.split(".")
    found = [
        module
        for name, module in model.named_modules(remove_duplicate=False)  # a module may have two
        if _matches(name.split("."), parts)
    ]
    names = [name for name, module in modules.items() if any(module is m for m in found)]
    if names:
        return names
    alike = [name for name in modules if name.count(".") == where.count(".")]
    close = nearest(where, [*RULES, *alike], n=3) or nearest(where, modules, n=3)
    outermost = ", ".join(name for name in modules if "." not in name)
    raise ValueError(
        f"where={where!r} matches no module of {type(model).__name__}: "
        + (f"did you mean {', '.join(map(repr, close))}?" if close else f"it has {outermost}")
    )


def _matches(name: list[str], pattern: list[str]) -> bool:
    return len(name) == len(pattern) and all(map(fnmatchcase, name, pattern))


def _check_not_nested(names: list[str]) -> None:
    for outer in names:
        for inner in names:
            if inner.startswith(f"{outer}."):
                raise ValueError(
                    f"where matches {outer!r} and, inside it, {inner!r}: narrow it to one of them"
                )


def _place(model: nn.Module, trace: Trace, larger: Trace | None, name: str) -> Place:
    calls = trace.by_module.get(name, [])
    kind = type(model.get_submodule(name)).__name__
    if not calls:
        raise ValueError(f"{name!r} ({kind}) is not run by the network in evaluation")
    if len(calls) > 1:
        raise ValueError(
            f"{name!r} ({kind}) is run {len(calls)} times in one pass, so the layer would act as "
            "often: name a module around it"
        )
    shape = _shape(calls[0].output)
    if shape is None:
        given = type(calls[0].output).__name__
        raise ValueError(f"{name!r} ({kind}) returns a {given}, not one map [B, C, H, W]")
    if len(shape) == 3:
        raise ValueError(
            f"{name!r} ({kind}) returns a stream of tokens {list(shape)}, and this layer needs a "
            "map [B, C, H, W]: tokens have no rows and columns"
        )
    if len(shape) != 4:
        raise ValueError(f"{name!r} ({kind}) returns {list(shape)}, not one map [B, C, H, W]")
    for around in _around(name):
        entered = trace.by_module.get(around)
        if entered and len(_shape(entered[0].input) or ()) == 3:
            raise ValueError(
                f"{name!r} ({kind}) is in {around!r}, which works on a stream of tokens, and this "
                "layer needs a map [B, C, H, W]: tokens have no rows and columns"
            )
    if _is_channels_last(model, name, shape, larger.shape(name) if larger else None):
        raise ValueError(
            f"{name!r} ({kind}) returns [B, H, W, C], channels last, and this layer needs a map "
            "[B, C, H, W]"
        )
    return Place(name, shape[1], (shape[2], shape[3]))


def _around(name: str) -> Iterator[str]:
    """Yield the names of the modules around one, the nearest first, the network left out."""
    while name := _parent(name):
        yield name


def _is_channels_last(
    model: nn.Module, name: str, shape: tuple[int, ...], larger: tuple[int, ...] | None
) -> bool:
    """Tell whether a module's output of four axes is [B, H, W, C].

    Args:
        model: the network.
        name: of the module.
        shape: of its output.
        larger: the same at another size of picture; None where the network takes one size only.
    """
    if larger is not None:
        return larger[3] == shape[3] and larger[1] != shape[1]
    module = model.get_submodule(name)
    if isinstance(module, nn.LayerNorm | nn.Linear):  # they work on the last axis
        width = module.weight.shape[0]
        return shape[3] == width != shape[1]
    return getattr(model, "output_fmt", None) == "NHWC"


def _shape(output: Any) -> tuple[int, ...] | None:
    return tuple(output.shape) if isinstance(output, torch.Tensor) else None


def _version(value: Any) -> int:
    return value._version if isinstance(value, torch.Tensor) else 0
