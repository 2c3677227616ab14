"""Pascal VOC with masks, 2007 and 2012, also with the masks that SBD adds."""

from collections.abc import Iterator
from pathlib import Path

from foveal.data.lists import require_apart
from foveal.data.masks import FoundMasks, MaskFiles, label_table
from foveal.data.pairing import Paired, listed_pairs, require_files
from foveal.data.palette import voc_palette
from foveal.data.pictures import list_pictures

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
LABELS = ("augmented", "original")

_PICTURES, _MASKS, _LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
_AUGMENTED_MASKS = ("SegmentationClassAug", "SegmentationClass_aug", "SegmentationLabel")
_AUGMENTED_LISTS = ("trainaug.txt", "train_aug.txt")


def detect(root: Path) -> bool:
    """Return whether there is ``JPEGImages`` and ``SegmentationClass`` or one of its variants."""
    return (root / _PICTURES).is_dir() and any(root.glob("Segmentation*"))


def read(root: Path, labels: str | None = None) -> FoundMasks:
    """Read the lists ``train``, ``val`` and ``test``, or ``trainaug`` with the masks of SBD.

    A line of a list is an id, or the paths of a picture and a mask. Value 255, which also marks the
    outlines of objects, is ignored; SBD's masks have no outlines. ``trainval`` serves where the
    training part is not divided. A test list without any masks, as that of VOC 2012, is left out.

    Args:
        root: a folder such as ``VOCdevkit/VOC2012``.
        labels: ``augmented`` trains on ``trainaug.txt``, ``original`` on ``train.txt``; None takes
            the first if it is there. Validation has the original masks in both cases.

    Raises:
        ValueError: a list or a folder is missing, a list is malformed, or a picture stands in two.
    """
    lists = split_lists(root, labels)
    parts, origins, entries, notes = {}, {}, {}, []
    problems: list[str] = []
    for split, source in lists.items():
        masks = _mask_folder(root, augmented=source.name in _AUGMENTED_LISTS)
        paired = _pairs(root, source, masks)
        listed = len(paired.pairs)
        require_files(root, source, paired)
        if split == "test" and not paired.pairs:
            notes.append(f"{source.name}: none of its {listed} pictures has a mask, not read")
            continue
        problems += paired.problems
        if paired.pairs:
            parts[split] = MaskFiles(root, paired.pairs, label_table(range(len(CLASSES))))
            entries[str(source)] = [Path(picture).stem for picture, _ in paired.pairs]
            folder = Path(paired.pairs[0][1]).parent
            origins[split] = f"list {source.name}, masks of {folder}/"
    require_apart(entries)
    return FoundMasks(
        root=str(root),
        classes=CLASSES,
        colors=voc_palette(len(CLASSES)),
        parts=parts,
        origins=origins,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def split_lists(root: Path, labels: str | None) -> dict[str, Path]:
    """Return the list of each split."""
    folder = root / _LISTS
    augmented = next((folder / n for n in _AUGMENTED_LISTS if (folder / n).is_file()), None)
    if labels == "augmented" and augmented is None:
        raise ValueError(f"{folder / _AUGMENTED_LISTS[0]}: there is no such file")
    lists = {}
    if augmented is not None and labels != "original":
        lists["train"] = augmented
    for split, name in (
        ("train", "train.txt"),
        ("val", "val.txt"),
        ("train", "trainval.txt"),
        ("test", "test.txt"),
    ):
        if name == "trainval.txt" and "val" in lists:
            continue
        if split not in lists and (folder / name).is_file():
            lists[split] = folder / name
    if not lists:
        raise ValueError(f"{folder}: there is no train.txt or val.txt in it")
    return lists


def _mask_folder(root: Path, augmented: bool) -> Path:
    """Return the folder that the masks of ids are in."""
    names = (*_AUGMENTED_MASKS, _MASKS) if augmented else (_MASKS, *_AUGMENTED_MASKS)
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None:
        raise ValueError(f"{root}: there is no folder {_MASKS} in it")
    return folder


def _pairs(root: Path, source: Path, masks: Path) -> Paired:
    """Return what a list names, relative to the root, whether it is there or not."""
    suffixes = {path.stem: path.suffix for path in list_pictures(root / _PICTURES)}
    return Paired(list(_relative(source, masks.name, suffixes)))


def _relative(source: Path, masks: str, suffixes: dict[str, str]) -> Iterator[tuple[str, str]]:
    for picture, mask in listed_pairs(source):
        if mask is None:
            suffix = suffixes.get(picture, ".jpg")
            yield f"{_PICTURES}/{picture}{suffix}", f"{masks}/{picture}.png"
        else:
            yield picture, mask
