"""What an export says about itself."""

from dataclasses import dataclass
from pathlib import Path


class ExportMismatchError(RuntimeError):
    """The file read back does not compute what the network computes; no file was written."""

    exit_status = 1  # the command line's: neither wrong input nor a defect of foveal


@dataclass(frozen=True)
class Check:
    """One comparison of the file read back with the network.

    Attributes:
        shape: of the input, [B, C, H, W].
        deviation: largest difference of an output, as a share of the largest output.
    """

    shape: tuple[int, ...]
    deviation: float


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it was checked; ``str()`` is for people.

    Attributes:
        path: the file.
        format: a key of :data:`foveal.exporting.FORMATS`.
        bytes: its size.
        dynamic: the axes of the input whose length is free: ``batch``, ``height``, ``width``.
        notes: what a user must know, such as why an axis is not free.
        checks: the comparisons made, all within the format's tolerance.
    """

    path: Path
    format: str
    bytes: int
    dynamic: tuple[str, ...]
    notes: tuple[str, ...]
    checks: tuple[Check, ...]

    def __str__(self) -> str:
        lines = [f"wrote {self.path} ({self.format}, {self.bytes / 1e6:.2f} MB)"]
        if self.dynamic:
            lines.append(f"free axes of the input: {', '.join(self.dynamic)}")
        lines += [f"note: {note}" for note in self.notes]
        for check in self.checks:
            shape = " x ".join(map(str, check.shape))
            lines.append(f"equal on {shape}: deviation {check.deviation:.1e} of the largest output")
        return "\n".join(lines)
