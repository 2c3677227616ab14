"""Numbers computed from predictions and truth."""

import foveal.torchvision_check  # noqa: F401  (before torchmetrics)
from foveal.metrics.boundaries import (
    EDGES,
    SKELETONS,
    BoundaryProtocol,
    BoundaryScores,
    count_boundaries,
    summarize_boundaries,
)
from foveal.metrics.boundary_matching import match_boundaries
from foveal.metrics.classification import (
    ClassificationScores,
    MultiLabelScores,
    calibration_bins,
    expected_calibration_error,
)
from foveal.metrics.fgsm import fgsm
from foveal.metrics.map_scores import MapScores
from foveal.metrics.non_maximum_suppression import suppress_non_maxima
from foveal.metrics.object_sizes import (
    ObjectSizeIoU,
    iou_by_object_size,
    means_by_object_size,
    spearman,
)
from foveal.metrics.saliency import SaliencyScores, score_saliency
from foveal.metrics.segmentation import SegmentationScores, class_iou, confusion_matrix, overlap

__all__ = [
    "EDGES",
    "SKELETONS",
    "BoundaryProtocol",
    "BoundaryScores",
    "ClassificationScores",
    "MapScores",
    "MultiLabelScores",
    "ObjectSizeIoU",
    "SaliencyScores",
    "SegmentationScores",
    "calibration_bins",
    "class_iou",
    "confusion_matrix",
    "count_boundaries",
    "expected_calibration_error",
    "fgsm",
    "iou_by_object_size",
    "match_boundaries",
    "means_by_object_size",
    "overlap",
    "score_saliency",
    "spearman",
    "summarize_boundaries",
    "suppress_non_maxima",
]
