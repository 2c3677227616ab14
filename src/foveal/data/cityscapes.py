"""Cityscapes with its fine labels, 19 classes."""

from pathlib import Path

import numpy as np

from foveal.data.masks import FoundMasks, MaskFiles, label_table
from foveal.data.pairing import Paired, pair_stems
from foveal.data.pictures import walk

_PICTURES, _MASKS = "leftImg8bit", "gtFine"
_PICTURE_END = "_leftImg8bit.png"
_TRAIN_END, _RAW_END = "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"
_RAW_VALUES = range(34)

_CLASSES = {  # name: (value in labelIds, colour of the official pictures)
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}


def detect(root: Path) -> bool:
    """Return whether there is ``leftImg8bit`` or ``gtFine``."""
    return (root / _PICTURES).is_dir() or (root / _MASKS).is_dir()


def read(root: Path) -> FoundMasks:
    """Read ``leftImg8bit/{train,val}/<city>`` and ``gtFine/{train,val}/<city>``.

    Masks are ``labelTrainIds``, which users make with the official scripts, or, where there are
    none, ``labelIds``, whose values are mapped to the 19 classes; all others are ignored. The
    labels of ``test`` are dummies: it is not read.

    Raises:
        ValueError: one of the two folders is missing.
    """
    for name, other in ((_PICTURES, _MASKS), (_MASKS, _PICTURES)):
        if not (root / name).is_dir():
            raise ValueError(f"{root}: there is no folder {name}/ beside {other}/")
    values = [value for value, _ in _CLASSES.values()]
    raw = label_table(values, ignored=set(_RAW_VALUES) - set(values))
    parts, origins = {}, {}
    problems: list[str] = []
    for split in ("train", "val"):
        pictures = _by_stem(root / _PICTURES / split, _PICTURE_END)
        masks = _by_stem(root / _MASKS / split, _TRAIN_END)
        table, end = (label_table(range(len(_CLASSES))), _TRAIN_END) if masks else (raw, _RAW_END)
        masks = masks or _by_stem(root / _MASKS / split, _RAW_END)
        paired = Paired()
        folders = (root / _PICTURES / split, root / _MASKS / split)
        pair_stems(root, pictures, masks, folders, paired)
        problems += paired.problems
        if paired.pairs:
            parts[split] = MaskFiles(root, paired.pairs, table)
            origins[split] = f"folder {split}/, masks *{end}"
    dummies = (root / _PICTURES / "test").is_dir()
    return FoundMasks(
        root=str(root),
        classes=tuple(_CLASSES),
        colors=np.array([colour for _, colour in _CLASSES.values()], np.uint8),
        parts=parts,
        origins=origins,
        problems=tuple(problems),
        notes=("test is not read: its labels are not public",) if dummies else (),
    )


def _by_stem(folder: Path, end: str) -> dict[str, Path]:
    """Return the files of a split whose names end so, by city and the rest of the name."""
    if not folder.is_dir():
        return {}
    paths = {str(path.relative_to(folder)): path for path in walk(folder)}
    return {name.removesuffix(end): path for name, path in paths.items() if name.endswith(end)}
