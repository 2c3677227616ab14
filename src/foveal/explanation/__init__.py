"""Pictures and numbers that show what a network looks at."""

from foveal.explanation.collapse import Collapse, attention_collapse
from foveal.explanation.gates import (
    GATE_KINDS,
    Gates,
    coordinate_gates,
    gate_arrays,
    read_gates,
)
from foveal.explanation.gradient_confusion import GradientConfusion, gradient_confusion

__all__ = [
    "GATE_KINDS",
    "Collapse",
    "Gates",
    "GradientConfusion",
    "attention_collapse",
    "coordinate_gates",
    "gate_arrays",
    "gradient_confusion",
    "read_gates",
]
