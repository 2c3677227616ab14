"""Numbers computed from predictions and truth."""

import foveal.torchvision_check  # noqa: F401  (before torchmetrics)
from foveal.metrics.classification import (
    ClassificationScores,
    MultiLabelScores,
    calibration_bins,
    expected_calibration_error,
)
from foveal.metrics.fgsm import fgsm
from foveal.metrics.saliency import SaliencyScores, score_saliency
from foveal.metrics.segmentation import SegmentationScores, class_iou, confusion_matrix, overlap

__all__ = [
    "ClassificationScores",
    "MultiLabelScores",
    "SaliencyScores",
    "SegmentationScores",
    "calibration_bins",
    "class_iou",
    "confusion_matrix",
    "expected_calibration_error",
    "fgsm",
    "overlap",
    "score_saliency",
]
