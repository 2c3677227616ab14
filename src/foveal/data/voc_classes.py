"""Which classes the pictures of Pascal VOC show, with and without masks.

The first of these that is there tells it: ``Annotations/ID.xml``, ``ImageSets/Main/CLASS_*.txt``,
the masks. Objects marked difficult count, as in the lists that weakly supervised segmentation is
usually trained with: they are in the picture. So a 0 in a class's list (nothing but difficult
objects) means the same as a 1, and both sources give the same labels.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from foveal.data import voc
from foveal.data.image_labels import BACKGROUND, in_masks
from foveal.data.lists import read_lines, require_apart
from foveal.data.pairing import listed_pairs
from foveal.data.parts import Found, PictureFiles
from foveal.data.pictures import list_pictures

CLASSES = tuple(name for name in voc.CLASSES if name != BACKGROUND)

_PICTURES, _BOXES, _MAIN = "JPEGImages", "Annotations", "ImageSets/Main"
_SEGMENTATION = "ImageSets/Segmentation"
_PARTS = ("train", "val", "trainval", "test")


def read(root: Path, labels: str | None = None) -> Found:
    """Read the lists of the segmentation task, or those of ``Main``, and each picture's classes.

    Where there are no lists at all, every picture with an annotation is taken. The classes are
    VOC's twenty; of sets in this layout that have others, those that occur, sorted.

    Args:
        root: a folder such as ``VOCdevkit/VOC2012``.
        labels: which training list of the segmentation task, as of :func:`foveal.data.voc.read`.

    Raises:
        ValueError: a list is missing or malformed, a picture stands in two, or nothing tells the
            classes.
    """
    shown, source = _shown(root)
    if shown is None:
        return in_masks(voc.read)(root, labels=labels)
    lists = _lists(root, labels)
    ids = {split: _ids(path) for split, path in lists.items()}
    require_apart({str(lists[split]): ids[split] for split in lists})
    if not ids:
        ids = {"all": sorted(path.stem for path in (root / _BOXES).glob("*.xml"))}
    pictures = {path.stem: path.name for path in list_pictures(root / _PICTURES)}
    known: dict[str, dict[str, set[str]]] = {}
    problems, notes = [], []
    for split, names in ids.items():
        where = lists.get(split, root / _BOXES)
        found = {name: shown(name) for name in names}
        told = {name: classes for name, classes in found.items() if not isinstance(classes, str)}
        if split == "test" and not told:
            notes.append(f"{where.name}: nothing tells the classes of its pictures, not read")
            continue
        problems += [classes for classes in found.values() if isinstance(classes, str)]
        problems += [
            f"{where}: there is no picture {name} in {root / _PICTURES}"
            for name in told
            if name not in pictures
        ]
        known[split] = {name: told[name] for name in told if name in pictures}
    present = {c for told in known.values() for classes in told.values() for c in classes}
    classes = CLASSES if present <= {*CLASSES} else tuple(sorted(present))
    parts = {
        split: PictureFiles(
            root,
            [f"{_PICTURES}/{pictures[name]}" for name in told],
            np.array([[c in told[name] for c in classes] for name in told], np.float32),
            upright=False,  # boxes and masks are drawn on the stored pixels
        )
        for split, told in known.items()
        if told
    }
    return Found(
        root=str(root),
        classes=classes,
        parts=parts,
        origins={
            split: f"list {lists[split].name}, classes of {source}" if split in lists else source
            for split in parts
        },
        multi_label=True,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _shown(root: Path) -> tuple[Callable[[str], set[str] | str] | None, str]:
    """Return what tells a picture's classes, or a sentence why not, and its folder's name."""
    if (root / _BOXES).is_dir():
        return lambda name: _annotated(root / _BOXES / f"{name}.xml"), f"{_BOXES}/"
    lists = _class_lists(root)
    if not lists:
        return None, ""

    def shown(name: str) -> set[str] | str:
        told = {c: present[name] for c, present in lists.items() if name in present}
        if not told:
            return f"{root / _MAIN}: no list of a class names the picture {name}"
        return {c for c, present in told.items() if present}

    return shown, f"{_MAIN}/"


def _annotated(path: Path) -> set[str] | str:
    """Return the names of the objects in an annotation."""
    try:
        tree = ElementTree.parse(path)
    except FileNotFoundError:
        return f"{path}: there is no such file"
    except ElementTree.ParseError as error:
        return f"{path}: is no XML ({error})"
    names = {(found.findtext("name") or "").strip() for found in tree.iter("object")}
    return names if "" not in names else f"{path}: an object in it has no name"


def _class_lists(root: Path) -> Mapping[str, Mapping[str, bool]]:
    """Return class → picture → whether it shows the class, of ``ImageSets/Main``."""
    found: dict[str, dict[str, bool]] = {}
    for path in sorted((root / _MAIN).glob("*_*.txt")):
        name, _, part = path.stem.rpartition("_")
        if part not in _PARTS:
            continue
        for line in read_lines(path):
            picture, *value = line.split()
            if value not in (["-1"], ["0"], ["1"]):
                raise ValueError(f"{path}: the line {line!r} must be a picture and -1, 0 or 1")
            found.setdefault(name, {})[picture] = value != ["-1"]
    return found


def _lists(root: Path, labels: str | None) -> dict[str, Path]:
    """Return the list of each split; none at all is fine."""
    if (root / _SEGMENTATION).is_dir() or labels is not None:
        return voc.split_lists(root, labels)
    files = {part: root / _MAIN / f"{part}.txt" for part in _PARTS}
    there = {part: path for part, path in files.items() if path.is_file()}
    both = there.pop("trainval", None)
    if both is not None and not {"train", "val"} & there.keys():
        there["train"] = both
    return {part: there[part] for part in ("train", "val", "test") if part in there}


def _ids(path: Path) -> Iterable[str]:
    return list(dict.fromkeys(Path(picture).stem for picture, _ in listed_pairs(path)))
