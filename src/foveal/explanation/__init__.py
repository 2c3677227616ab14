"""Pictures and numbers that show what a network looks at."""

import foveal.torchvision_check  # noqa: F401  (before timm and torchvision)

# isort: split

from foveal.explanation.attention_rollout import last_attention, rollout
from foveal.explanation.class_activation import (
    ACTIVATION_METHODS,
    ActivationMaps,
    activation_maps,
    class_activation,
    normalized,
)
from foveal.explanation.collapse import Collapse, attention_collapse
from foveal.explanation.deletion_insertion import DeletionInsertion, deletion_insertion
from foveal.explanation.explanation import Explanation
from foveal.explanation.gates import (
    GATE_KINDS,
    Gates,
    coordinate_gates,
    gate_arrays,
    read_gates,
)
from foveal.explanation.gradient_confusion import GradientConfusion, gradient_confusion
from foveal.explanation.looking import find_layer
from foveal.explanation.methods import METHODS, explain

__all__ = [
    "ACTIVATION_METHODS",
    "GATE_KINDS",
    "METHODS",
    "ActivationMaps",
    "Collapse",
    "DeletionInsertion",
    "Explanation",
    "Gates",
    "GradientConfusion",
    "activation_maps",
    "attention_collapse",
    "class_activation",
    "coordinate_gates",
    "deletion_insertion",
    "explain",
    "find_layer",
    "gate_arrays",
    "gradient_confusion",
    "last_attention",
    "normalized",
    "read_gates",
    "rollout",
]
