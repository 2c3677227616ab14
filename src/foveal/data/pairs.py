"""A folder of pictures beside a folder of masks with equal stems."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveal.data.lists import read_names
from foveal.data.masks import (
    IGNORED,
    FoundMasks,
    MaskFiles,
    WrongLabelsError,
    decode_mask,
    label_table,
)
from foveal.data.paired_folders import MASK_WORDS, elsewhere, find_folders, has_folders
from foveal.data.pairing import Paired, pair_folders
from foveal.data.palette import voc_palette
from foveal.data.pictures import DamagedPictureError

_NAMES = "classes.txt"
_LOOKED_AT = 16  # masks, where the names of the classes are given


def detect(root: Path) -> bool:
    """Return whether a folder of pictures lies beside one of masks, here or in a split's folder."""
    return has_folders(root, MASK_WORDS)


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
    folders = find_folders(root, MASK_WORDS, "masks")
    paired = {split: pair_folders(root, both.images, both.masks) for split, both in folders.items()}
    if not any(part.pairs for part in paired.values()):
        problems = [problem for part in paired.values() for problem in part.problems]
        raise ValueError(problems[0] if problems else f"{root}: no pictures in it")
    classes, notes = _classes(root, paired)
    parts, origins = {}, {}
    for split, part in paired.items():
        if part.pairs:
            parts[split] = MaskFiles(root, part.pairs, label_table(range(len(classes))))
            origins[split] = folders[split].origin(root)
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
            *(str(path) for path in elsewhere(root, folders.values()) if path != root / _NAMES),
        ),
    )


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
