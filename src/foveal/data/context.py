"""Pascal Context with masks of 59 classes and background, as MMSegmentation prepares them."""

from pathlib import Path

from foveal.data.lists import require_apart
from foveal.data.masks import FoundMasks, MaskFiles, label_table
from foveal.data.pairing import Paired, listed_pairs, require_files
from foveal.data.palette import voc_palette

LABELS = ("59", "60")

_PICTURES, _MASKS = "JPEGImages", "SegmentationClassContext"
_LISTS = "ImageSets/SegmentationContext"
_CLASSES = """
    aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus cabinet car cat
    ceiling chair cloth computer cow cup curtain dog door fence floor flower food grass ground horse
    keyboard light motorbike mountain mouse person plate platform pottedplant road rock sheep
    shelves sidewalk sign sky snow sofa table track train tree truck tvmonitor wall water window
    wood
"""


def detect(root: Path) -> bool:
    """Return whether there are ``JPEGImages`` and ``SegmentationClassContext``."""
    return (root / _PICTURES).is_dir() and (root / _MASKS).is_dir()


def read(root: Path, labels: str = "59") -> FoundMasks:
    """Read ``VOC2010`` with ``SegmentationClassContext`` and ``ImageSets/SegmentationContext``.

    Args:
        root: the folder ``VOC2010``.
        labels: ``59`` ignores the background (value 0), ``60`` makes it the first class.
            Papers report either: a score belongs to one of them.

    Raises:
        ValueError: no list, or one that is malformed, or a picture in two of them.
    """
    background = labels == "60"
    table = label_table(range(60)) if background else label_table(range(1, 60), ignored=[0])
    parts, origins, entries = {}, {}, {}
    problems: list[str] = []
    for split in ("train", "val"):
        source = root / _LISTS / f"{split}.txt"
        paired = Paired(
            [
                (picture, mask)
                if mask
                else (f"{_PICTURES}/{picture}.jpg", f"{_MASKS}/{picture}.png")
                for picture, mask in listed_pairs(source)
            ]
        )
        require_files(root, source, paired)
        problems += paired.problems
        if paired.pairs:
            parts[split] = MaskFiles(root, paired.pairs, table)
            origins[split] = f"list {source.name}"
            entries[str(source)] = [Path(picture).stem for picture, _ in paired.pairs]
    require_apart(entries)
    names = _CLASSES.split()
    classes = ("background", *names) if background else tuple(names)
    return FoundMasks(
        root=str(root),
        classes=classes,
        colors=voc_palette(len(classes), first=0 if background else 1),
        parts=parts,
        origins=origins,
        problems=tuple(problems),
        notes=(f"{len(classes)} classes, {'with' if background else 'without'} background",),
    )
