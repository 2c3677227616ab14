"""A folder of pictures beside a folder of masks with equal stems."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveal.data.imagefolder import subfolders
from foveal.data.lists import read_names
from foveal.data.masks import (
    IGNORED,
    FoundMasks,
    MaskFiles,
    WrongLabelsError,
    decode_mask,
    label_table,
)
from foveal.data.pairing import Paired, pair_folders
from foveal.data.palette import voc_palette
from foveal.data.pictures import DamagedPictureError, walk
from foveal.data.splits import SPLITS, split_called

# What the names of the two folders begin or end with, in lower case, without "_" and "-".
_IMAGE_WORDS = ("image", "images", "img", "imgs", "pictures", "photos")
_MASK_WORDS = ("mask", "masks", "gt", "gts", "groundtruth", "label", "labels", "annotations")
_NAMES = "classes.txt"
_LOOKED_AT = 16  # masks, where the names of the classes are given


class _Both(NamedTuple):
    """A folder of pictures and one of masks, and what both names have beside the words."""

    images: Path
    masks: Path
    rest: str = ""


def detect(root: Path) -> bool:
    """Return whether a folder of pictures lies beside one of masks, here or in a split's folder."""
    return any(_candidates(folder) for folder in (root, *_split_folders(root).values()))


def read(root: Path) -> FoundMasks:
    """Pair pictures and masks by their stems; subfolders are followed.

    The two folders are known by the names in use, such as ``images`` and ``masks`` or ``img`` and
    ``gt``. They lie in split folders (``train/images``), hold split folders (``images/train``),
    are called after splits (``train_images``), or are not divided. A value in a mask is a class
    index, 255 is ignored. ``classes.txt``, one name in each line, tells the classes; without it
    all masks are looked at for the largest value, and the classes are called by their numbers.

    Raises:
        ValueError: no folder, or several, of pictures or masks; no pairs; masks that are none or
            that show fewer than two classes.
    """
    folders = _folders(root)
    paired = {split: pair_folders(root, both.images, both.masks) for split, both in folders.items()}
    if not any(part.pairs for part in paired.values()):
        problems = [problem for part in paired.values() for problem in part.problems]
        raise ValueError(problems[0] if problems else f"{root}: no pictures in it")
    classes, notes = _classes(root, paired)
    parts, origins = {}, {}
    for split, part in paired.items():
        if part.pairs:
            parts[split] = MaskFiles(root, part.pairs, label_table(range(len(classes))))
            origins[split] = _origin(root, folders[split])
    return FoundMasks(
        root=str(root),
        classes=classes,
        colors=voc_palette(len(classes)),
        parts=parts,
        origins=origins,
        problems=tuple(p for part in paired.values() for p in part.problems),
        notes=notes,
        ignored=(
            *(p for part in paired.values() for p in part.ignored),
            *_elsewhere(root, {folder for both in folders.values() for folder in both[:2]}),
        ),
    )


def _elsewhere(root: Path, folders: set[Path]) -> list[str]:
    """Return the files that lie outside of the folders of pictures and masks."""
    return [
        str(path)
        for path in walk(root)
        if folders.isdisjoint(path.parents) and path != root / _NAMES
    ]


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folders called after splits, training first."""
    found = {split_called(folder.name): folder for folder in reversed(subfolders(root))}
    return {split: found[split] for split in SPLITS if split in found}


def _candidates(root: Path) -> list[_Both]:
    """Return the folders of pictures and masks in a folder that may belong together."""
    images, masks = (
        {folder: rest for folder in subfolders(root) if (rest := _rest(folder, words)) is not None}
        for words in (_IMAGE_WORDS, _MASK_WORDS)
    )
    pairs = [_Both(i, m, images[i]) for i in images for m in masks if images[i] == masks[m]]
    if not pairs and len(images) == len(masks) == 1:
        pairs = [_Both(next(iter(images)), next(iter(masks)))]
    return pairs


def _rest(folder: Path, words: tuple[str, ...]) -> str | None:
    """Return what a folder's name has beside one of the words: ``train`` of ``train_images``."""
    parts = folder.name.lower().replace("-", "_").split("_")
    if "".join(parts) in words:
        return ""
    if parts[-1] in words:
        return "_".join(parts[:-1])
    return "_".join(parts[1:]) if parts[0] in words else None


def _folders(root: Path) -> dict[str, _Both]:
    """Return the folders of pictures and masks of each split, or of ``all``."""
    inside = {
        split: folder for split, folder in _split_folders(root).items() if _candidates(folder)
    }
    if inside:
        return {split: _only(folder, _candidates(folder)) for split, folder in inside.items()}
    beside = _candidates(root)
    named = {split: [b for b in beside if split_called(b.rest) == split] for split in SPLITS}
    if any(named.values()):
        return {split: _only(root, pairs) for split, pairs in named.items() if pairs}
    both = _only(root, beside)
    images, masks = _split_folders(both.images), _split_folders(both.masks)
    divided = {s: _Both(images[s], masks[s]) for s in SPLITS if s in images and s in masks}
    return divided or {"all": both}


def _only(folder: Path, pairs: list[_Both]) -> _Both:
    """Return the one pair of folders whose names have nothing beside the words, or the only one."""
    if not pairs:
        raise ValueError(
            f"{folder}: there is no folder of pictures such as images/ beside one of masks such as "
            "masks/"
        )
    chosen = [both for both in pairs if not both.rest] or pairs
    if len(chosen) > 1:
        names = ", ".join(f"{both.images.name}/ with {both.masks.name}/" for both in chosen)
        raise ValueError(
            f"{folder}: which masks belong to which pictures? There are {names}: only one pair of "
            "folders may be called so"
        )
    return chosen[0]


def _classes(root: Path, paired: dict[str, Paired]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return class names, and a note on where they come from."""
    table = root / _NAMES
    pairs = [pair for part in paired.values() for pair in part.pairs]
    if table.is_file():
        names = read_names(table)
        if len(names) > IGNORED:
            raise ValueError(
                f"{table}: has {len(names)} names, where at most {IGNORED} are possible"
            )
        _require_two(root, names, f"{_NAMES} has")
        _refuse_black_and_white([root / mask for _, mask in pairs[:_LOOKED_AT]])
        return names, ()
    seen = _values([root / mask for _, mask in pairs])
    names = tuple(str(k) for k in range(1 + int(np.flatnonzero(seen[:IGNORED]).max(initial=-1))))
    _require_two(root, names, f"the {len(pairs)} masks show", seen)
    note = (
        f"{len(names)} classes, numbered, because the largest value in {len(pairs)} masks is "
        f"{len(names) - 1}; a list of names in {_NAMES} saves that look at every start"
    )
    return names, (note,)


def _refuse_black_and_white(paths: list[Path]) -> None:
    """Raise where masks have 255 for a class: they would all be learned as nothing but class 0."""
    if np.flatnonzero(_values(paths)).tolist() == [0, IGNORED]:
        raise WrongLabelsError(
            paths[0],
            "the masks are black and white, values 0 and 255, and 255 means ignored: a mask of two "
            "classes has the values 0 and 1",
        )


def _values(paths: list[Path]) -> NDArray[np.bool_]:
    """Return which values the masks have that open, bool [256]; raise if none does."""
    seen, damage = np.zeros(256, bool), []
    for path in paths:
        try:
            values, _ = decode_mask(path)
        except DamagedPictureError as error:
            damage.append(error)  # reported where pictures are read
        else:
            seen[np.unique(values)] = True
    if len(damage) == len(paths):
        raise damage[0]
    return seen


def _require_two(
    root: Path, names: tuple[str, ...], who: str, seen: NDArray[np.bool_] | None = None
) -> None:
    if len(names) >= 2:
        return
    hint = ""
    if seen is not None and seen[IGNORED]:
        hint = "; 255 means ignored: a mask of two classes has the values 0 and 1"
    raise ValueError(
        f"{root}: {who} {len(names) or 'no'} class{'es' if not names else ''}, where segmentation "
        f"needs at least two{hint}"
    )


def _origin(root: Path, both: _Both) -> str:
    return f"folders {both.images.relative_to(root)}/ and {both.masks.relative_to(root)}/"
