"""CUB-200-2011: birds, in text files that are joined on the pictures' ids.

Source: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001.
"""

import re
from pathlib import Path

import numpy as np

from foveal.data.lists import read_pairs, require_distinct, require_once, unlisted
from foveal.data.parts import Found, PictureFiles

_FOLDER = "CUB_200_2011"
_PATHS, _LABELS, _SPLITS = "images.txt", "image_class_labels.txt", "train_test_split.txt"
_FLAGS = {"train": 1, "test": 0}


def detect(root: Path) -> bool:
    """Return whether the text files lie in the folder or in the folder of the archive."""
    return _folder(root) is not None


def read(root: Path) -> Found:
    """Read the training and test pictures.

    A class is called by its name in ``classes.txt`` without the number before it, ``_`` turned
    into blanks: ``001.Black_footed_Albatross`` is ``Black footed Albatross``. (If that made two
    names equal, all would stay as they are.) Bounding boxes, parts and attributes are not read.

    Args:
        root: the folder of the text files, or the one above ``CUB_200_2011``.

    Raises:
        ValueError: a file is missing, a picture is in one of them but not in another, or an entry
            is out of range.
    """
    folder = _folder(root)
    if folder is None:
        raise ValueError(f"{root}: no files of CUB-200-2011 such as {_LABELS} in it")
    classes = _class_names(folder / "classes.txt")
    paths = read_pairs(folder / _PATHS)
    require_once(folder / _PATHS, paths.values())
    labels = _of_pictures(folder, _LABELS, paths, range(1, len(classes) + 1))
    flags = _of_pictures(folder, _SPLITS, paths, range(2))
    parts, origins = {}, {}
    for split, flag in _FLAGS.items():
        chosen = [picture for picture in paths if flags[picture] == flag]
        if not chosen:
            raise ValueError(f"{folder / _SPLITS}: no picture has {flag}, which means {split}")
        targets = np.array([labels[picture] - 1 for picture in chosen], dtype=np.int64)
        parts[split] = PictureFiles(folder / "images", [paths[p] for p in chosen], targets)
        origins[split] = f"pictures with {flag} in {_SPLITS}"
    return Found(
        root=str(folder),
        classes=classes,
        parts=parts,
        origins=origins,
        ignored=unlisted(folder / "images", paths.values()),
    )


def _folder(root: Path) -> Path | None:
    for folder in (root, root / _FOLDER):
        if sum((folder / name).is_file() for name in (_PATHS, _LABELS, _SPLITS)) >= 2:
            return folder
    return None


def _class_names(path: Path) -> tuple[str, ...]:
    names = read_pairs(path)
    if set(names) != {str(k + 1) for k in range(len(names))}:
        raise ValueError(f"{path}: the classes must be numbered from 1 to {len(names)}, each once")
    in_full = tuple(names[str(k + 1)] for k in range(len(names)))
    require_distinct(path, in_full)
    short = tuple(re.sub(r"^\d+\.", "", name).replace("_", " ") for name in in_full)
    return short if len(set(short)) == len(short) else in_full


def _of_pictures(folder: Path, name: str, paths: dict[str, str], allowed: range) -> dict[str, int]:
    """Return picture → number, from a file that must have each picture and no other."""
    path, numbers = folder / name, {str(k): k for k in allowed}
    entries = read_pairs(path)
    for picture in paths:
        if picture not in entries:
            raise ValueError(f"{path}: has no picture {picture}, but {_PATHS} has")
    for picture, entry in entries.items():
        if picture not in paths:
            raise ValueError(f"{folder / _PATHS}: has no picture {picture}, but {name} has")
        if entry not in numbers:
            raise ValueError(
                f"{path}: picture {picture} has {entry!r}, where {allowed[0]} to {allowed[-1]} "
                "is expected"
            )
    return {picture: numbers[entry] for picture, entry in entries.items()}
