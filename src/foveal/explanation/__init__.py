"""Pictures and numbers that show what a network looks at."""

from foveal.explanation.gates import Gates, coordinate_gates

__all__ = ["Gates", "coordinate_gates"]
