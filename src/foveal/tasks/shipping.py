"""``foveal.export``: a run or a network as a file that others can use."""

from pathlib import Path

from torch import nn

from foveal import exporting
from foveal.tasks.run import Run, load


def export(
    run_or_model: str | Path | Run | nn.Module,
    format: str,
    path: str | Path,
    *,
    image_size: int | None = None,
) -> "exporting.ExportReport":
    """Write a network to a file and prove that the file computes the same.

    Args:
        run_or_model: a run folder, a :class:`foveal.Run`, or a network.
        format: one of ``foveal.exporting.FORMATS``: ``safetensors``, ``torch``, ``onnx``.
        path: the file to write.
        image_size: side in pixels at which to trace; None takes that of the run.

    Returns:
        What was written and the deviations measured; ``str()`` is readable.

    Raises:
        ValueError: no such run or format.
        ImportError: the format needs an extra that is not installed; the message names it.
        ExportMismatchError: the written file does not compute what the network computes.
    """
    model = run_or_model if isinstance(run_or_model, nn.Module) else load(run_or_model)
    metadata = getattr(model, "metadata", None)
    return exporting.export(model, format, path, image_size=image_size, metadata=metadata)
