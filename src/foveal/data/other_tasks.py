"""Recognising folders that belong to other tasks than classification.

Each function looks at names in a folder, and at few files, and answers yes or no.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from foveal.data.imagefolder import subfolders
from foveal.data.pictures import list_pictures, walk
from foveal.data.splits import split_called

_FEW_VALUES = 32


def is_voc_boxes(root: Path) -> bool:
    """Pascal VOC with boxes alone: ``JPEGImages`` and ``Annotations``."""
    return _has(root, "JPEGImages", "Annotations")


def is_coco(root: Path) -> bool:
    """COCO: ``annotations/*.json``."""
    return any((root / "annotations").glob("*.json"))


def is_yolo(root: Path) -> bool:
    """YOLO: ``images`` and ``labels`` with .txt files, in the folder or in each split's."""
    return any(
        _has(folder, "images", "labels")
        and any(path.suffix == ".txt" for path in walk(folder / "labels"))
        for folder in _with_splits(root)
    )


def is_masks(root: Path) -> bool:
    """Label masks alone: pictures spread over the folders of three levels all look like masks."""
    below = subfolders(root)
    levels = [[root], below, [inner for folder in below for inner in subfolders(folder)]]
    pictures = [
        path
        for level in levels
        for folder in _spread(level, 12)
        for path in _spread(list_pictures(folder), 4)
    ]
    return bool(pictures) and all(_looks_like_mask(path) for path in pictures)


def is_domains(root: Path) -> bool:
    """Folders of class folders, the classes mostly the same: PACS, Office-31, Office-Home."""
    return bool(domains(root))


def domains(root: Path) -> list[Path]:
    """Return the domain folders of a set of domains, or nothing for any other folder."""
    folders = subfolders(root)
    if len(folders) < 2 or any(split_called(folder.name) for folder in folders):
        return []
    classes = []
    for folder in folders:
        classes.append(_class_names(folder))
        if not classes[-1]:
            return []
    common, together = set.intersection(*classes), set.union(*classes)
    alike = len(common) >= 2 and 2 * len(common) >= len(together)
    return folders if alike else []


def _with_splits(root: Path) -> list[Path]:
    return [root, *(folder for folder in subfolders(root) if split_called(folder.name))]


def _spread(paths: list[Path], most: int) -> list[Path]:
    return paths[:: -(-len(paths) // most) or 1]


def _has(root: Path, *folders: str) -> bool:
    return all((root / folder).is_dir() for folder in folders)


def _class_names(domain: Path) -> set[str]:
    inner = subfolders(domain)
    if [folder.name for folder in inner] == ["images"]:  # Office-31
        inner = subfolders(inner[0])
    if not inner or list_pictures(domain):
        return set()
    return {folder.name for folder in inner if list_pictures(folder)}


def _looks_like_mask(path: Path) -> bool:
    """Return whether a picture has one channel or a palette, and few values.

    JPEG would blur the edges of labels, so that masks are always stored without loss.
    """
    try:
        with Image.open(path) as image:
            if image.format == "JPEG" or image.mode not in ("1", "L", "P", "I;16", "I"):
                return False
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                return False
            return len(np.unique(np.asarray(image))) <= _FEW_VALUES
    except Exception:  # damaged pictures are reported where pictures are read
        return False


def in_words(names: Sequence[str]) -> str:
    """Return names as an enumeration, the end of a long one left out."""
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
