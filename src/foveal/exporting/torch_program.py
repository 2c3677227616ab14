"""The format ``torch``: a program of torch.export, and the tracing that ONNX starts from."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from foveal.exporting.subject import Outputs, Subject, Written, first_line, named_outputs

METADATA_FILE = "foveal.json"
"""Name under which the metadata lies in a ``.pt2`` file (``extra_files`` of torch.export.load)."""

AXES = {"batch": 0, "height": 2, "width": 3}


@dataclass(frozen=True)
class Traced:
    """A network as a graph.

    Attributes:
        program: the graph.
        inputs: what to compare on: the traced size, batch 1, and, where they are free, other sizes.
        dynamic: the axes whose length is free.
        notes: why an axis is not free.
    """

    program: ExportedProgram
    inputs: tuple[Tensor, ...]
    dynamic: tuple[str, ...]
    notes: tuple[str, ...]


def write(subject: Subject, path: Path) -> Written:
    """Trace, write and read back.

    Where torch.export cannot write what the network computes from a free height or width, such as
    a padding, they are fixed.

    Raises:
        ValueError: the network cannot be traced, or its graph not be written.
    """
    traced = trace(subject, guarded=True)
    try:
        _save(traced.program, path, subject.metadata)
    except ValueError as error:
        if "height" not in traced.dynamic:
            raise
        traced = _trace_one_size(subject, first_line(error))
        _save(traced.program, path, subject.metadata)
    with warnings.catch_warnings():
        # torch 2.11 reads the weights into buffers that it calls not writable.
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()

    def run(x: Tensor) -> Outputs:
        with torch.no_grad():
            return named_outputs(module(x))

    return Written(run, traced.inputs, traced.dynamic, traced.notes)


def _save(program: ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph.

    Raises:
        ValueError: torch.export does not know how to.
    """
    try:
        torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(metadata)})
    except OSError:
        raise
    except Exception as error:  # it has no common class for what it does not know
        reason = first_line(error)
        raise ValueError(f"torch.export cannot write the network: {reason}") from error


def trace(subject: Subject, *, guarded: bool) -> Traced:
    """Trace with as many free axes as the network allows: all, the batch alone, none.

    Args:
        subject: the network.
        guarded: whether the format keeps torch.export's guards, which refuse sizes that the trace
            does not cover. Without them every size that the network takes is run, and compared.

    Raises:
        ValueError: torch.export cannot trace the network at all.
    """
    try:
        return _trace_any_size(subject, guarded=guarded)
    except Exception as error:  # torch.export raises almost anything
        return _trace_one_size(subject, first_line(error))


def _trace_one_size(subject: Subject, reason: str) -> Traced:
    """Trace with the batch free, or without anything free.

    Args:
        subject: the network.
        reason: why height and width are not free.

    Raises:
        ValueError: torch.export cannot trace the network at all.
    """
    notes = [f"height and width are fixed at {subject.image_size}: {reason}"]
    try:
        program = _export(subject.model, subject.input(2), ("batch",))
        inputs = tuple(subject.input(batch) for batch in (2, 1, 3))
        return Traced(program, inputs, ("batch",), tuple(notes))
    except Exception as error:
        notes.append(f"the batch is fixed at 1: {first_line(error)}")
    try:
        program = _export(subject.model, subject.input(1), ())
    except Exception as error:
        raise ValueError(f"torch.export cannot trace the network: {first_line(error)}") from error
    return Traced(program, (subject.input(1),), (), tuple(notes))


def _trace_any_size(subject: Subject, *, guarded: bool) -> Traced:
    """Trace with batch, height and width free; raise if the network or the trace forbids it."""
    size = subject.image_size
    same, single = subject.input(2), subject.input(1)
    smaller = subject.input(3, round(size * 3 / 4), round(size * 5 / 4))
    larger = subject.input(3, round(size * 5 / 4), round(size * 3 / 2))
    subject.run(larger)  # a network made for one size says so better than torch.export does
    program = _export(subject.model, same, tuple(AXES))
    if _bounded(program):
        if guarded:
            raise ValueError(
                "a feature map of a single pixel excludes larger pictures from the trace; "
                "a larger image_size leaves both free"
            )
        program = _export(subject.model, subject.input(2, 2 * size, 2 * size), tuple(AXES))
        if _bounded(program):
            raise ValueError("a feature map of a single pixel excludes larger pictures")
    note = _refusal(subject, program if guarded else None, smaller)
    if note is not None:
        return Traced(program, (same, single, larger), tuple(AXES), (note,))
    return Traced(program, (same, single, larger, smaller), tuple(AXES), ())


def _refusal(subject: Subject, guarded: ExportedProgram | None, x: Tensor) -> str | None:
    """Say why the network, or a graph with guards, does not take an input; None where it does."""
    size = f"{x.shape[2]} x {x.shape[3]} pixels"
    try:
        subject.run(x)
    except Exception as error:
        return f"{size} are too small: {first_line(error)}"
    try:
        if guarded is not None:
            guarded.module()(x)
    except Exception as error:
        reason = first_line(error)
        if reason.endswith(" != 1"):  # what torch.export takes for granted of a traced length
            reason = "one of their feature maps is a single pixel high or wide"
        return f"the trace excludes {size}: {reason}"
    return None


def _bounded(program: ExportedProgram) -> bool:
    """Tell whether the trace holds for axes up to some length only."""
    return any(str(limits.upper).isdigit() for limits in program.range_constraints.values())


def _export(model: nn.Module, example: Tensor, dynamic: tuple[str, ...]) -> ExportedProgram:
    dims = {AXES[axis]: Dim.DYNAMIC for axis in dynamic}
    # Warnings about the exporter's own insides are nothing that a user could act on.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(model, (example,), dynamic_shapes=(dims,))
