"""Pictures and numbers that show what a network looks at."""

from foveal.explanation.gates import GATE_KINDS, Gates, coordinate_gates, gate_arrays, read_gates

__all__ = ["GATE_KINDS", "Gates", "coordinate_gates", "gate_arrays", "read_gates"]
