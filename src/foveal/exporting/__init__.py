"""A trained network as a file for other programs, proved equal to the network before it counts.

A format is one module with a function ``write(subject, path)``, and one line in :data:`FORMATS`.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from foveal.exporting import onnx_graph, torch_program, weights
from foveal.exporting.report import Check, ExportMismatchError, ExportReport
from foveal.exporting.subject import Format, Subject, named_outputs, relative_deviation
from foveal.files import replacing
from foveal.names import unknown

__all__ = ["FORMATS", "Check", "ExportMismatchError", "ExportReport", "export"]

FORMATS: dict[str, Format] = {
    # A copy of the numbers: nothing may change.
    "safetensors": Format(".safetensors", weights.write, tolerance=0.0),
    # The same kernels on the same numbers; they may be called in another order.
    "torch": Format(".pt2", torch_program.write, tolerance=1e-5),
    # Another library's kernels: float32 rounding, amplified layer by layer.
    "onnx": Format(".onnx", onnx_graph.write, tolerance=1e-4),
}


def export(
    model: nn.Module,
    format: str,
    path: str | Path,
    *,
    image_size: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> ExportReport:
    """Write a network to a file, read the file back, and prove that it computes the same.

    The file appears under its name only after it has passed; until then, and if it fails, a file
    that was there before stays as it was. The network itself is not changed: a copy in float32 on
    the CPU, in eval mode, is exported. Classes, preprocessing and architecture travel as metadata.

    Args:
        model: [B, C, H, W] -> a tensor, or a dict of tensors. The attributes ``classes`` and
            ``preprocess`` (:class:`foveal.data.transforms.Preprocess`) are used if it has them;
            without the latter, ``default_cfg`` tells mean, std and order of channels.
        format: one of :data:`FORMATS`.
        path: the file to write; the format's suffix is added if it has none.
        image_size: side in pixels at which to trace; None takes that of ``model.preprocess`` or
            of timm's ``pretrained_cfg``, else 224.
        metadata: further entries for the file.

    Returns:
        What was written, which sizes are free, and the deviations measured.

    Raises:
        ValueError: unknown format, wrong suffix, or a network that the format cannot hold or
            that does not take pictures of this size.
        TypeError: not a network, or outputs other than a tensor or a dict of tensors.
        ImportError: the format needs an extra that is not installed.
        ExportMismatchError: the file read back does not compute what the network computes.
    """
    if format not in FORMATS:
        raise ValueError(unknown("format", format, FORMATS))
    kind = FORMATS[format]
    target = _with_suffix(Path(path), kind.suffix)
    subject = Subject.of(model, image_size=image_size, metadata=metadata or {})
    with replacing(target) as temporary:
        written = kind.write(subject, temporary)
        checks = []
        for x in written.inputs:
            shape = tuple(x.shape)
            try:
                outputs = written.run(x)
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                raise ExportMismatchError(
                    f"the exported {format} file does not run on {list(shape)}, which the network "
                    f"takes, so {target} was not written: {reason}"
                ) from error
            deviation = relative_deviation(outputs, named_outputs(subject.run(x)))
            if not deviation <= kind.tolerance:  # so that NaN fails
                raise ExportMismatchError(
                    f"the exported {format} file computes something else than the network on "
                    f"{list(shape)}, so {target} was not written: it deviates by {deviation:.1e} "
                    f"of the largest output, {kind.tolerance:.0e} is allowed"
                )
            checks.append(Check(shape, deviation))
        size = temporary.stat().st_size
    return ExportReport(target, format, size, written.dynamic, written.notes, tuple(checks))


def _with_suffix(path: Path, suffix: str) -> Path:
    """Return ``path`` with ``suffix`` added if it has none.

    Raises:
        ValueError: it has another suffix.
        OSError: it is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder: name a file, such as {path / 'model'}{suffix}"
        )
    if not path.suffix:
        return path.with_name(path.name + suffix)
    if path.suffix != suffix:
        raise ValueError(f"the file's name must end in {suffix}, not {path.suffix}: {path}")
    return path
