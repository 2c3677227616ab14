"""Stanford Cars: two flat folders of pictures, their classes in MATLAB files.

Source: Krause et al., 3D Object Representations for Fine-Grained Categorization, 3dRR 2013.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveal.data import csv_labels
from foveal.data.lists import require_distinct, require_once, unlisted
from foveal.data.matlab import read_mat, whole_numbers
from foveal.data.parts import Found, PictureFiles
from foveal.data.pictures import list_pictures

_FOLDER = "stanford_cars"  # as torchvision calls it; the archives have no common one
_META = "cars_meta.mat"
_FILES = {"train": "cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}


def detect(root: Path) -> bool:
    """Return whether there are pictures in ``cars_train``, here or below ``stanford_cars``.

    Mirrors with class folders or a CSV file of classes are for the readers of those.
    """
    return _folder(root) is not None and not csv_labels.lists_pictures(root)


def read(root: Path) -> Found:
    """Read the training pictures, and the test pictures if there are classes for them.

    The MATLAB files are looked for in ``devkit/`` and beside the folders of pictures. Boxes are
    not read.

    Args:
        root: the folder of ``cars_train`` and ``devkit``, or the one above ``stanford_cars``.

    Raises:
        ValueError: a file is missing, damaged or of other contents, or a class is out of range.
    """
    folder = _folder(root)
    if folder is None:
        raise ValueError(f"{root}: no pictures of Stanford Cars such as cars_train/00001.jpg in it")
    classes = _class_names(_mat(folder, _META))
    parts, origins = {}, {}
    notes: list[str] = []
    ignored: list[str] = []
    for split, name in _FILES.items():
        pictures, path = _pictures(folder, split), _mat(folder, name)
        names: list[str] = []
        if split == "test" and not path.is_file():
            notes.append(f"{path}: there is no such file, so no test pictures are read")
        else:
            names, targets = _annotations(path, len(classes))
            parts[split] = PictureFiles(pictures, names, targets)
            origins[split] = f"file {name}"
        ignored += unlisted(pictures, names)
    return Found(
        root=str(folder),
        classes=classes,
        parts=parts,
        origins=origins,
        notes=tuple(notes),
        ignored=tuple(ignored),
    )


def _folder(root: Path) -> Path | None:
    for folder in (root, root / _FOLDER):
        pictures = _pictures(folder, "train")
        if pictures.is_dir() and list_pictures(pictures):
            return folder
    return None


def _pictures(folder: Path, split: str) -> Path:
    """Return the folder of a split's pictures; some mirrors have it twice, one in the other."""
    outer = folder / f"cars_{split}"
    return outer / outer.name if (outer / outer.name).is_dir() else outer


def _mat(folder: Path, name: str) -> Path:
    beside = folder / name
    return beside if beside.is_file() else folder / "devkit" / name


def _class_names(path: Path) -> tuple[str, ...]:
    (content,) = read_mat(path, "class_names")
    names = np.atleast_1d(content).tolist()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{path}: 'class_names' must be a cell array of names")
    require_distinct(path, names)
    return tuple(names)


def _annotations(path: Path, classes: int) -> tuple[list[str], NDArray[np.int64]]:
    """Return file names and targets of a struct array with a class for each picture."""
    (content,) = read_mat(path, "annotations")
    rows = np.atleast_1d(content)
    if not {"fname", "class"} <= {*(rows.dtype.names or ())} or rows.ndim != 1 or not len(rows):
        raise ValueError(f"{path}: 'annotations' must be a struct array with fname and class")
    names = rows["fname"].tolist()
    if not all(isinstance(name, str) and name == os.path.basename(name) != "" for name in names):
        raise ValueError(f"{path}: 'fname' must be the name of a file")
    require_once(path, names)
    return names, whole_numbers(path, "class", rows["class"].tolist(), classes) - 1
