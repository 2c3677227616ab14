"""The format ``onnx``: one file with its weights inside, run back in onnxruntime."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.exporting.subject import Outputs, Subject, Written, first_line, named_outputs
from foveal.exporting.torch_program import AXES, trace

INPUT = "image"
"""Name of the graph's input; outputs are ``logits``, or the keys of the network's dict."""


def write(subject: Subject, path: Path) -> Written:
    """Translate the traced network, write it, and read it back.

    Raises:
        ImportError: the extra ``export`` is not installed.
        ValueError: the network cannot be traced or has an operation that ONNX lacks.
    """
    for library in ("onnx", "onnxscript", "onnxruntime"):
        _library(library)
    names = list(named_outputs(subject.run(subject.input(1))))
    traced = trace(subject, guarded=False)
    axes = {AXES[axis]: axis for axis in traced.dynamic}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                traced.program,
                dynamo=True,
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes=(axes,) if axes else None,
                verbose=False,
            )
        except Exception as error:
            raise ValueError(f"ONNX cannot hold this network: {first_line(error)}") from error
        if program is None:
            raise ValueError("ONNX cannot hold this network: the exporter returned nothing")
        program.model.metadata_props.update(subject.metadata)
        program.save(str(path), external_data=False)
    return Written(_session(path, names), traced.inputs, traced.dynamic, traced.notes)


def _session(path: Path, names: list[str]) -> Any:
    onnxruntime = _library("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a failing run raises; its log line would say it twice
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Outputs:
        values = session.run(names, {INPUT: x.numpy()})
        return {name: torch.from_numpy(v) for name, v in zip(names, values, strict=True)}

    return run


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"exporting to ONNX needs {name}: pip install 'foveal[export]'", name=name
        ) from error
