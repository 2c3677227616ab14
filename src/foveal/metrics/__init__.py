"""Numbers computed from predictions and truth."""

import foveal.torchvision_check  # noqa: F401  (before torchmetrics)
from foveal.metrics.classification import (
    ClassificationScores,
    MultiLabelScores,
    calibration_bins,
    expected_calibration_error,
)
from foveal.metrics.fgsm import fgsm

__all__ = [
    "ClassificationScores",
    "MultiLabelScores",
    "calibration_bins",
    "expected_calibration_error",
    "fgsm",
]
