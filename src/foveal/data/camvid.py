"""CamVid in eleven classes, as SegNet's authors distribute it."""

from pathlib import Path

import numpy as np

from foveal.data.lists import unlisted
from foveal.data.masks import FoundMasks, MaskFiles, label_table
from foveal.data.pairing import Paired, listed_pairs, pair_folders, require_files
from foveal.data.splits import SPLITS

_UNLABELLED = 11
_CLASSES = {  # names and colours of SegNet's demonstration
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}


def detect(root: Path) -> bool:
    """Return whether there are ``train`` and ``trainannot``."""
    return (root / "train").is_dir() and (root / "trainannot").is_dir()


def read(root: Path) -> FoundMasks:
    """Read ``train``, ``val`` and ``test`` beside ``trainannot``, ``valannot`` and ``testannot``.

    Where there is a list such as ``train.txt``, its pairs are read in its order; its paths are of
    the authors' machine, so that only folder and file count. Value 11 is ignored.

    Raises:
        ValueError: no pictures, or a list that is not one of pairs.
    """
    parts, origins = {}, {}
    problems: list[str] = []
    ignored: list[str] = []
    for split in SPLITS:
        if not (root / split).is_dir():
            continue
        source = root / f"{split}.txt"
        if source.is_file():
            paired, origin = _listed(source, split), f"list {source.name}"
            ignored += unlisted(root / split, (Path(p).name for p, _ in paired.pairs))
        else:
            paired = pair_folders(root, root / split, root / f"{split}annot")
            origin = f"folders {split}/ and {split}annot/"
        problems += paired.problems
        ignored += paired.ignored
        if paired.pairs:
            parts[split] = MaskFiles(root, paired.pairs, label_table(range(11), [_UNLABELLED]))
            origins[split] = origin
    return FoundMasks(
        root=str(root),
        classes=tuple(_CLASSES),
        colors=np.array(list(_CLASSES.values()), np.uint8),
        parts=parts,
        origins=origins,
        problems=tuple(problems),
        ignored=tuple(ignored),
    )


def _listed(source: Path, split: str) -> Paired:
    paired = Paired()
    for picture, mask in listed_pairs(source):
        name = Path(picture).name
        paired.pairs.append((f"{split}/{name}", mask or f"{split}annot/{name}"))
    require_files(source.parent, source, paired)
    return paired
