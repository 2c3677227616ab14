"""Pictures in ``images/`` with truth in MATLAB files of equal stems in ``groundTruth/``."""

from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveal.data.imagefolder import subfolders
from foveal.data.lists import require_apart
from foveal.data.maps import FoundMaps, MapFiles, Truth
from foveal.data.masks import WrongLabelsError
from foveal.data.matlab import read_mat
from foveal.data.paired_folders import split_folders
from foveal.data.pairing import pair_folders
from foveal.data.pictures import DamagedPictureError, walk

_PICTURES, _TRUTH = "images", "groundTruth"
_FILES_TRIED = 5


def first_variable(root: Path, *names: str) -> str | None:
    """Return which of the variables the .mat files under ``groundTruth`` have, or None.

    The first file that can be read decides; a few are tried.
    """
    if not ((root / _PICTURES).is_dir() and (root / _TRUTH).is_dir()):
        return None
    from scipy.io import whosmat

    for path in islice((p for p in walk(root / _TRUTH) if _is_mat(p.name)), _FILES_TRIED):
        with suppress(Exception):  # a damaged file is reported where it is read
            return next((name for name, *_ in whosmat(path) if name in names), None)
    return None


def read_folders(root: Path, read: Callable[[str], Truth]) -> FoundMaps:
    """Pair ``images/{train,val,test}`` with ``groundTruth/{train,val,test}``, or both undivided.

    A split without truth is left out, and a note says so.

    Args:
        root: folder of the two folders.
        read: reads a .mat file.

    Raises:
        ValueError: one of the two folders is missing.
    """
    for name in (_PICTURES, _TRUTH):
        if not (root / name).is_dir():
            raise ValueError(f"{root}: there is no folder {name}/ in it")
    images, truths = split_folders(root / _PICTURES), split_folders(root / _TRUTH)
    folders = {split: (images[split], truths[split]) for split in images if split in truths}
    folders = folders or {"all": (root / _PICTURES, root / _TRUTH)}
    parts, origins, stems = {}, {}, {}
    problems: list[str] = []
    ignored: list[str] = []
    for split, (pictures, truth) in folders.items():
        paired = pair_folders(root, pictures, truth, partner="truth", is_partner=_is_mat)
        problems += paired.problems
        ignored += paired.ignored
        if paired.pairs:
            parts[split] = MapFiles(root, paired.pairs, read, size_of=None)
            origins[split] = f"folders {pictures.relative_to(root)}/ and {truth.relative_to(root)}/"
            stems[str(pictures)] = [Path(picture).stem for picture, _ in paired.pairs]
    require_apart(stems)
    without = [folder.name for split, folder in images.items() if split not in folders]
    notes = [
        f"{name} is not read: there is no folder {_TRUTH}/{name}" for name in without if truths
    ]
    beside = [f for f in subfolders(root) if f.name not in (_PICTURES, _TRUTH)]
    return FoundMaps(
        root=str(root),
        parts=parts,
        origins=origins,
        problems=tuple(problems),
        notes=tuple(notes),
        ignored=(*ignored, *(f"{folder}/" for folder in beside)),
    )


def read_variable(path: str, name: str) -> Any:
    """Return a variable of a MATLAB file; raises DamagedPictureError where it cannot be read."""
    try:
        return read_mat(Path(path), name)[0]
    except ValueError as error:
        raise DamagedPictureError(path, str(error).removeprefix(f"{path}: ")) from error


def marked(path: str, name: str, values: Any) -> NDArray[np.bool_]:
    """Return which pixels of a picture are marked, bool [H, W].

    Args:
        path: the file, for messages.
        name: what they are called there.
        values: [H, W] of 0 and 1, or of 0 and 255.

    Raises:
        WrongLabelsError: anything else.
    """
    pixels = np.asarray(values)
    if pixels.ndim != 2 or pixels.dtype.kind not in "biuf":
        raise WrongLabelsError(path, f"{name!r} must be a matrix of 0 and 1")
    top = 255 if pixels.max(initial=0) > 1 else 1
    wrong = pixels[(pixels != 0) & (pixels != top)]
    if wrong.size:
        raise WrongLabelsError(path, f"{name!r} must be a matrix of 0 and 1, not {wrong[0]:g}")
    return pixels > 0


def _is_mat(name: str) -> bool:
    return name.lower().endswith(".mat")
