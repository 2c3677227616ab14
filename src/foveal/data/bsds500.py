"""BSDS500: object contours, drawn by several people for each picture."""

from pathlib import Path

import numpy as np

from foveal.data.maps import FoundMaps, Truth
from foveal.data.masks import WrongLabelsError
from foveal.data.mat_maps import first_variable, marked, read_folders, read_variable

_VARIABLE, _FIELD = "groundTruth", "Boundaries"


def detect(root: Path) -> bool:
    """Return whether there are ``images`` and ``groundTruth``, here or in ``data``."""
    return _is_here(root) or _is_here(root / "data")


def read(root: Path) -> FoundMaps:
    """Read ``images/{train,val,test}`` and ``groundTruth/{train,val,test}``, here or in ``data``.

    An edge map tells the share of a picture's annotators who marked a pixel.

    Raises:
        ValueError: a folder is missing, or a picture is in two splits.
    """
    return read_folders(root if _is_here(root) else root / "data", read_truth)


def read_truth(path: str) -> Truth:
    """Return the boundaries of all annotators in a .mat file.

    Raises:
        DamagedPictureError: it cannot be read.
        WrongLabelsError: it has no annotators, or what they drew is no boundaries of one picture.
    """
    cells = np.atleast_1d(np.asarray(read_variable(path, _VARIABLE)))
    annotations = []
    for cell in cells.ravel():
        names = getattr(getattr(cell, "dtype", None), "names", None) or ()
        if _FIELD not in names:
            raise WrongLabelsError(path, f"an annotator of {_VARIABLE!r} has no {_FIELD!r}")
        drawn = np.asarray(cell[_FIELD])
        annotations.append(marked(path, _FIELD, drawn.item() if drawn.ndim == 0 else drawn))
    if not annotations:
        raise WrongLabelsError(path, f"{_VARIABLE!r} has no annotators")
    sizes = {annotation.shape for annotation in annotations}
    if len(sizes) > 1:
        raise WrongLabelsError(path, f"the {_FIELD!r} of its annotators have different sizes")
    share = np.stack(annotations).mean(axis=0).astype(np.float32)
    many = f"{len(annotations)} annotators" if len(annotations) > 1 else "1 annotator"
    return Truth(share, tuple(annotations), many)


def _is_here(root: Path) -> bool:
    return first_variable(root, _VARIABLE, "symmetry") == _VARIABLE
