"""SK-LARGE, SK506 and sets in the same layout: skeletons of objects."""

from pathlib import Path

import numpy as np

from foveal.data.maps import FoundMaps, Truth
from foveal.data.mat_maps import first_variable, marked, read_folders, read_variable

_VARIABLE = "symmetry"


def detect(root: Path) -> bool:
    """Return whether there are ``images`` and ``groundTruth``, .mat files with ``symmetry``."""
    return first_variable(root, _VARIABLE, "groundTruth") == _VARIABLE


def read(root: Path) -> FoundMaps:
    """Read ``images/{train,test}`` and ``groundTruth/{train,test}``.

    Raises:
        ValueError: a folder is missing, or a picture is in two splits.
    """
    return read_folders(root, read_truth)


def read_truth(path: str) -> Truth:
    """Return the skeleton in a .mat file.

    Raises:
        DamagedPictureError: it cannot be read.
        WrongLabelsError: it is not a matrix of 0 and 1.
    """
    skeleton = marked(path, _VARIABLE, read_variable(path, _VARIABLE))
    return Truth(skeleton.astype(np.float32), (skeleton,), "1 annotator")
