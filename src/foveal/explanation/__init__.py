"""Pictures and numbers that show what a network looks at."""

from foveal.explanation.class_activation import (
    ACTIVATION_METHODS,
    ActivationMaps,
    activation_maps,
    class_activation,
    normalized,
)
from foveal.explanation.collapse import Collapse, attention_collapse
from foveal.explanation.explanation import Explanation
from foveal.explanation.gates import Gates, coordinate_gates
from foveal.explanation.looking import find_layer
from foveal.explanation.methods import METHODS, explain

__all__ = [
    "ACTIVATION_METHODS",
    "METHODS",
    "ActivationMaps",
    "Collapse",
    "Explanation",
    "Gates",
    "activation_maps",
    "attention_collapse",
    "class_activation",
    "coordinate_gates",
    "explain",
    "find_layer",
    "normalized",
]
