"""Pictures and numbers that show what a network looks at."""

from foveal.explanation.collapse import Collapse, attention_collapse
from foveal.explanation.gates import Gates, coordinate_gates

__all__ = ["Collapse", "Gates", "attention_collapse", "coordinate_gates"]
