"""Pictures and labels: readers of public layouts, transforms, sampling, built-in pictures."""

from foveal.data.classification import ClassificationData, Pictures, read_classification
from foveal.data.pictures import DamagedPictureError, open_picture

__all__ = [
    "ClassificationData",
    "DamagedPictureError",
    "Pictures",
    "open_picture",
    "read_classification",
]
