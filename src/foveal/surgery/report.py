"""What an insertion changed: the places, and what the network costs before and after."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import nn

from foveal.models.counting import Counts
from foveal.surgery.inserted import Inserted, attach, bypassing

_ROUNDS = 15


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one picture, medians of interleaved rounds.

    Attributes:
        before: without the inserted layers.
        after: with them.
        device: where it was measured, and with how many threads.
    """

    before: float
    after: float
    device: str


class InsertionReport:
    """What :func:`foveal.insert` did; ``str()`` is a table, :meth:`undo` takes it back.

    Attributes:
        layer: name of the layer.
        layer_args: its arguments.
        where: the rule or pattern; of a function its name.
        identity: whether the layers start at identity.
        input_size: (C, H, W) at which maps and multiply-adds were counted.
        places: the modules after which the layer now is, in the order in which they run; each has
            a ``name``.
        layers: the inserted modules, one for each place.
        before: parameters and multiply-adds of the network as it was.
        after: the same with the inserted layers.
        notes: what may not have been meant, such as a second layer at the same place.
    """

    after: Counts
    relation = "after"

    def __init__(
        self,
        model: nn.Module,
        *,
        layer: str,
        layer_args: dict[str, Any],
        where: str,
        identity: bool,
        input_size: tuple[int, int, int],
        places: tuple[Any, ...],
        layers: tuple[nn.Module, ...],
        before: Counts,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.layer, self.layer_args, self.where = layer, layer_args, where
        self.identity, self.input_size = identity, input_size
        self.places, self.layers = places, layers
        self.before = self.after = before
        self.notes = notes
        self._model = model
        self._takers_out: list[Callable[[], None]] = []

    def apply(self) -> None:
        """Put the layers in; nothing happens where they are in.

        Raises:
            ValueError: a place where none can be; those before it are in.
        """
        if self._takers_out:
            return
        for place, inserted in zip(self.places, self.layers, strict=True):
            self._takers_out.append(self._put_in(place.name, inserted))

    def _put_in(self, name: str, layer: nn.Module) -> Callable[[], None]:
        """Put a layer in at a place, and return what takes it out again."""
        return attach(self._model, name, cast(Inserted, layer))

    def _without_layers(self) -> AbstractContextManager[None]:
        """Let the network run as it was."""
        return bypassing(cast(tuple[Inserted, ...], self.layers))

    def undo(self) -> None:
        """Take the layers out: the network is what it was; nothing happens a second time."""
        while self._takers_out:
            self._takers_out.pop()()

    @cached_property
    def latency(self) -> Latency | None:
        """Time for one picture without and with the layers.

        None on the meta device and after :meth:`undo`. Measured at the first look, which takes
        about a second, on the network's device and in its type, without compilation; the network
        and all random numbers are left as they were.
        """
        weight = next(self._model.parameters(), torch.empty(0))
        if weight.is_meta or not self._takers_out:
            return None
        x = torch.zeros(1, *self.input_size, device=weight.device, dtype=weight.dtype)
        before: list[float] = []
        after: list[float] = []
        eager = torch.compiler.set_stance("force_eager")  # bypassing is not for a compiled graph
        with _evaluating(self._model), torch.no_grad(), eager:
            for _ in range(_ROUNDS + 1):
                with self._without_layers():
                    before.append(_milliseconds(self._model, x))
                after.append(_milliseconds(self._model, x))
        device = str(weight.device)
        if weight.device.type == "cpu":
            threads = torch.get_num_threads()
            device = f"cpu, {threads} thread{'s' if threads > 1 else ''}"
        # The first round warms up.
        return Latency(statistics.median(before[1:]), statistics.median(after[1:]), device)

    def __str__(self) -> str:
        """Return the table: a line for each place, then the costs before and after."""
        arguments = "".join(f", {key}={value!r}" for key, value in self.layer_args.items())
        start = ", starting at identity" if self.identity else ""
        head = (
            f"{self.layer}{arguments} {self.relation} {len(self.places)} module"
            f"{'s' if len(self.places) > 1 else ''} of "
            f"{type(self._model).__name__} (where: {self.where}){start}"
        )
        rows = self._rows()
        notes = ["", *(f"note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join([head, "", *_columns(rows), "", *_columns(self._costs()), *notes])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.layer!r} {self.relation} {len(self.places)} modules)"

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [(self.relation, "channels", "map", "parameters")]
        for place, layer in zip(self.places, self.layers, strict=True):
            added = sum(p.numel() for p in layer.parameters())
            size = f"{place.size[0]}x{place.size[1]}"
            rows.append((place.name, f"{place.channels:,d}", size, f"{added:,d}"))
        return rows

    def _costs(self) -> list[tuple[str, ...]]:
        before, after = self.before, self.after
        size = "x".join(map(str, self.input_size))
        rows: list[tuple[str, ...]] = [
            ("", "before", "after", "change"),
            (
                "parameters",
                f"{before.parameters:,d}",
                f"{after.parameters:,d}",
                _change(before.parameters, after.parameters),
            ),
            (
                f"multiply-adds ({size})",
                f"{before.multiply_adds / 1e6:,.1f} M",
                f"{after.multiply_adds / 1e6:,.1f} M",
                _change(before.multiply_adds, after.multiply_adds),
            ),
        ]
        if (latency := self.latency) is not None:
            milliseconds = (f"{latency.before:.1f} ms", f"{latency.after:.1f} ms")
            change = _change(latency.before, latency.after)
            rows.append((f"latency ({latency.device})", *milliseconds, change))
        return rows


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Align the first column left and the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [f"{first:<{widths[0]}}"]
        cells += [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.1%}" if before else "new"


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _milliseconds(model: nn.Module, x: torch.Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    start = time.perf_counter()
    model(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return (time.perf_counter() - start) * 1e3
