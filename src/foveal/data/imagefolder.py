"""A folder for each class, below ``train/``, ``val/`` and ``test/`` or without such a division."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from foveal.data.parts import Found, PictureFiles
from foveal.data.pictures import is_picture_name, is_visible, list_pictures, printable, walk
from foveal.data.splits import SPLITS, split_called

_WNID = re.compile(r"n\d{8}")  # a WordNet noun, as ImageNet's class folders are called
_TABLE = "classes.tsv"


def detect(root: Path) -> bool:
    """Return whether there is a folder with pictures somewhere in it."""
    return root.is_dir() and any(_has_pictures(child) for child in subfolders(root))


def read(root: Path) -> Found:
    """List the pictures of each class folder and its subfolders.

    The class list is the sorted folder names of all splits together. Where all of them are
    ImageNet's WordNet ids and a table ``classes.tsv`` (columns index, wnid, name) lies beside the
    split folders, the class list is the whole table and a target is the index there, so that a
    sample of ImageNet's folders keeps ImageNet's indices and fits a head of 1000 classes; all
    1000 folders sorted are in that order anyway.

    Raises:
        ValueError: no class folders, pictures outside class folders, two folders for one split,
            or a table that does not fit the folders.
    """
    folders = _split_folders(root)
    listings = {split: _ClassFolders(folder) for split, folder in folders.items()}
    names = sorted({name for listing in listings.values() for name in listing.files})
    if not any(listing.files[name] for listing in listings.values() for name in listing.files):
        raise ValueError(f"{root}: no pictures in it")
    classes, index, notes, used = _class_list(root, names)
    parts, origins = {}, {}
    prefix = os.path.join(root, "")  # of every path; pathlib takes minutes over a million files
    for split, listing in listings.items():
        paths = [path for name in names for path in listing.files.get(name, [])]
        counts = [len(listing.files.get(name, [])) for name in names]
        targets = np.repeat(np.array([index[name] for name in names], dtype=np.int64), counts)
        parts[split] = PictureFiles(
            root, [os.fspath(path).removeprefix(prefix) for path in paths], targets
        )
        origins[split] = f"folder {folders[split].resolve().name}/"
    ignored = [*_strays(root, folders, used), *(p for x in listings.values() for p in x.ignored)]
    return Found(
        root=str(root),
        classes=classes,
        parts=parts,
        origins=origins,
        problems=tuple(p for listing in listings.values() for p in listing.problems),
        notes=tuple(notes),
        ignored=tuple(str(path) for path in ignored),
    )


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders directly in a folder, sorted by name."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if is_visible(entry.name) and entry.is_dir())
    return [folder / name for name in names]


class _ClassFolders:
    """What one split's folder holds: the picture files of each class folder, and the rest."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, list[Path]] = {}
        self.ignored: list[Path] = []
        self.problems: list[str] = []
        flat = list_pictures(folder)
        for child in subfolders(folder):
            files = list(walk(child))
            self.files[child.name] = [path for path in files if is_picture_name(path.name)]
            self.ignored += [path for path in files if not is_picture_name(path.name)]
            if printable(child.name) != child.name:
                self.problems.append(
                    f"{printable(child)}: the name of this class folder is not UTF-8, rename it"
                )
            if not self.files[child.name]:
                self.problems.append(f"{printable(child)}: no pictures in this class folder")
        if flat:
            self.problems.append(
                f"{folder}: {len(flat)} pictures such as {printable(flat[0].name)} lie outside "
                "class folders; each class needs a folder of its own"
            )


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of the splits, or the root itself as ``all``."""
    folders: dict[str, Path] = {}
    for child in subfolders(root):
        split = split_called(child.name)
        # VisDA and COCO have a class called train: a split's folder has class folders in it.
        if split is None or not (subfolders(child) or _is_alone(child)):
            continue
        if split in folders:
            raise ValueError(
                f"{root}: both {folders[split].name}/ and {child.name}/ would be the {split} part"
            )
        folders[split] = child
    return {s: folders[s] for s in SPLITS if s in folders} or {"all": root}


def _is_alone(child: Path) -> bool:
    """Return whether a folder without subfolders stands beside split folders, not classes."""
    others = [folder for folder in subfolders(child.parent) if folder != child]
    return all(split_called(folder.name) is not None for folder in others)


def _class_list(
    root: Path, names: list[str]
) -> tuple[tuple[str, ...], dict[str, int], list[str], list[Path]]:
    """Return class names, folder name → target, notes, and the files that were used."""
    in_order = {name: k for k, name in enumerate(names)}
    if not all(_WNID.fullmatch(name) for name in names):
        return tuple(names), in_order, [], []
    table = root / _TABLE
    if table.is_file():
        wnids, titles = _read_table(table)
        index = {wnid: k for k, wnid in enumerate(wnids)}
        for name in names:
            if name not in index:
                raise ValueError(f"{table}: has no line for the class folder {name}")
        note = f"{len(names)} class folders mapped to their index among {len(wnids)} in {_TABLE}"
        return titles, index, [note], [table]
    if len(names) == 1000:
        return tuple(names), in_order, [], []
    note = (
        f"the {len(names)} class folders are numbered in sorted order, not by ImageNet's index, "
        f"for there is no {_TABLE} beside them"
    )
    return tuple(names), in_order, [note], []


def _read_table(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the wnids and the class names, both in the order of the index."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        if any(None in row.values() for row in rows):
            raise ValueError("a line has fewer columns")
        by_index = {int(row["index"]): (row["wnid"], row["name"]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: must have the columns index, wnid and name ({error})") from error
    if sorted(by_index) != list(range(len(rows))):
        raise ValueError(f"{path}: the index must count from 0 to {len(rows) - 1}, each once")
    wnids = tuple(by_index[k][0] for k in range(len(rows)))
    names = [by_index[k][1] for k in range(len(rows))]
    twice = {name for name in names if names.count(name) > 1}  # ImageNet: crane, maillot
    return wnids, tuple(
        f"{name} ({wnid})" if name in twice else name
        for wnid, name in zip(wnids, names, strict=True)
    )


def _strays(root: Path, folders: dict[str, Path], used: list[Path]) -> Iterator[Path]:
    """Yield the files and folders beside the split or class folders."""
    for child in sorted(root.iterdir()):
        if not is_visible(child.name) or child in used or child in folders.values():
            continue
        if child.is_file() or "all" not in folders:
            yield child


def _has_pictures(folder: Path) -> bool:
    return any(is_picture_name(path.name) for path in walk(folder))
