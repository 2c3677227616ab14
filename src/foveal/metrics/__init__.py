"""Numbers computed from predictions and truth."""

from foveal.metrics.classification import (
    ClassificationScores,
    MultiLabelScores,
    expected_calibration_error,
)

__all__ = ["ClassificationScores", "MultiLabelScores", "expected_calibration_error"]
