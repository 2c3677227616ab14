"""The pure functions of region mining, all in one place."""

from foveal.explanation import class_activation
from foveal.metrics import iou_by_object_size, spearman
from foveal.mining.erasing import erase, feature_mask
from foveal.mining.label_maps import compose_label_map, enumerate_pairs

__all__ = [
    "class_activation",
    "compose_label_map",
    "enumerate_pairs",
    "erase",
    "feature_mask",
    "iou_by_object_size",
    "spearman",
]
