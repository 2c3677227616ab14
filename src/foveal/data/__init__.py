"""Pictures and labels: readers of public layouts, transforms, sampling, built-in pictures."""

from foveal.data.classification import ClassificationData, Pictures, read_classification
from foveal.data.dense import DenseData, JointPictures, MappedPictures, join, read_dense
from foveal.data.pictures import DamagedPictureError, open_picture
from foveal.data.segmentation import MaskedPictures, SegmentationData, read_segmentation

__all__ = [
    "ClassificationData",
    "DamagedPictureError",
    "DenseData",
    "JointPictures",
    "MappedPictures",
    "MaskedPictures",
    "Pictures",
    "SegmentationData",
    "join",
    "open_picture",
    "read_classification",
    "read_dense",
    "read_segmentation",
]
