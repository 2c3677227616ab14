"""ADE20K's scene parsing benchmark of 150 classes (``ADEChallengeData2016``)."""

from pathlib import Path

from foveal.data.imagefolder import subfolders
from foveal.data.lists import read_lines
from foveal.data.masks import FoundMasks, MaskFiles, label_table
from foveal.data.pairing import pair_folders
from foveal.data.palette import voc_palette
from foveal.data.pictures import list_pictures

_COUNT = 150
_NAMES = "objectInfo150.txt"
_FOLDERS = {"train": "training", "val": "validation"}


def detect(root: Path) -> bool:
    """Return whether there are ADE20K's folders, and its pictures' names or its table in them.

    Other sets with folders ``images/training`` are not taken for it: 0 is a class there.
    """
    images = root / "images"
    if not images.is_dir() or not (root / "annotations" / "training").is_dir():
        return False
    return (root / _NAMES).is_file() or any(
        path.name.startswith("ADE_") for folder in subfolders(images) for path in _some(folder)
    )


def read(root: Path) -> FoundMasks:
    """Read ``images/{training,validation}`` and ``annotations/{training,validation}``.

    Values 1 to 150 are the classes 0 to 149; 0, everything else, is ignored. Names come from
    ``objectInfo150.txt``, the first of several synonyms; without it classes are called by their
    numbers there, 1 to 150.

    Raises:
        ValueError: the table of names is not of 150 classes.
    """
    parts, origins = {}, {}
    problems: list[str] = []
    ignored: list[str] = []
    for split, name in _FOLDERS.items():
        images, masks = root / "images" / name, root / "annotations" / name
        if not images.is_dir():
            continue
        paired = pair_folders(root, images, masks)
        problems += paired.problems
        ignored += paired.ignored
        if paired.pairs:
            parts[split] = MaskFiles(root, paired.pairs, label_table(range(1, _COUNT + 1), [0]))
            origins[split] = f"folder {name}/"
    classes, notes = _classes(root / _NAMES)
    return FoundMasks(
        root=str(root),
        classes=classes,
        colors=voc_palette(_COUNT, first=1),
        parts=parts,
        origins=origins,
        problems=tuple(problems),
        notes=notes,
        ignored=tuple(ignored),
    )


def _some(folder: Path) -> list[Path]:
    return list_pictures(folder)[:1]


def _classes(table: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return class names, and a note where there are none."""
    if not table.is_file():
        numbers = tuple(str(k + 1) for k in range(_COUNT))
        return numbers, (f"classes are called by their numbers: there is no {_NAMES}",)
    names = {}
    for line in read_lines(table):
        columns = [column.strip() for column in line.split("\t")]
        if columns[0].isdecimal():  # the first line has the columns' names
            names[int(columns[0])] = columns[-1]
    if sorted(names) != list(range(1, _COUNT + 1)):
        raise ValueError(f"{table}: must have a line for each class from 1 to {_COUNT}")
    in_full = tuple(names[k + 1] for k in range(_COUNT))
    first = tuple(name.split(",")[0].strip() for name in in_full)
    return tuple(s if first.count(s) == 1 else f for s, f in zip(first, in_full, strict=True)), ()
