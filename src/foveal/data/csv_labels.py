"""Pictures and their labels listed in a CSV file."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foveal.data.parts import Found, PictureFiles, StoredPictures
from foveal.data.pictures import is_picture_name
from foveal.data.splits import SPLITS, split_called
from foveal.names import unknown

_PATH_HEADERS = ("path", "file", "filename", "filepath", "image", "image_path", "picture")
_LABEL_HEADERS = ("label", "labels", "class", "classes", "target", "category", "tags")
_SPLIT_HEADERS = ("split", "set", "subset", "part")


def detect(root: Path) -> bool:
    """Return whether the path is a .csv file or a folder with exactly one."""
    return _find(root) is not None


def lists_pictures(root: Path) -> bool:
    """Return whether one of the file's first two lines names a picture that is there."""
    path = _find(root)
    if path is None:
        return False
    try:
        lines = _read_lines(path)[:2]
    except ValueError:
        return False
    return any((path.parent / cell).is_file() for _, cells in lines for cell in cells if cell)


def read(root: Path, multi_label: bool = False) -> Found:
    r"""Read lines of ``path,label`` or ``path,label,split``.

    A header line is optional: a first line whose path is a file, or has a picture's suffix, is
    data. Labels are names, or whole numbers, which are then sorted as numbers. With
    ``multi_label`` a label column may hold several, separated by ``;`` or ``|``, or none; or the
    header has, in place of a label column, one column of 0 and 1 for each class.
    Paths are relative to the CSV file. Columns may be separated by tabs or semicolons instead.

    Args:
        root: the file, or a folder with one.
        multi_label: whether a picture may show several classes or none.

    Raises:
        ValueError: no such file, not UTF-8, a line with other columns, an empty or unknown entry;
            the message has the line's number.
    """
    path = _find(root)
    if path is None:
        raise ValueError(f"{root}: no .csv file in it, or several")
    lines = _read_lines(path)
    columns, lines = _columns(path, lines, multi_label)
    entries = [_entry(path, number, cells, columns, multi_label) for number, cells in lines]
    if not entries:
        raise ValueError(f"{path}: lists no pictures")
    classes = columns.classes or _sorted_labels(entries)
    parts, origins = _parts(path, entries, classes, multi_label)
    return Found(
        root=str(path),
        classes=classes,
        parts=parts,
        origins=origins,
        multi_label=multi_label,
        problems=tuple(_path_problems(path, entries)),
    )


@dataclass(frozen=True)
class _Columns:
    """Where things stand in a line; ``classes`` are the headers of the columns of 0 and 1."""

    count: int
    path: int
    label: int | None
    split: int | None
    classes: tuple[str, ...] = ()
    class_columns: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Entry:
    line: int
    path: str
    labels: tuple[str, ...]
    split: str | None


def _find(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() in (".csv", ".tsv") else None
    files = [child for child in root.glob("*.[cC][sS][vV]") if not child.name.startswith(".")]
    return files[0] if len(files) == 1 else None


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return line number and cells of every line that is not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            delimiter = next((d for d in ",\t;" if d in first), ",")
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            return [
                (reader.line_num, [cell.strip() for cell in cells])
                for cells in reader
                if any(cell.strip() for cell in cells)
            ]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8 text ({error.reason})") from error
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error


def _columns(
    path: Path, lines: list[tuple[int, list[str]]], multi_label: bool
) -> tuple[_Columns, list[tuple[int, list[str]]]]:
    """Return the columns, and the lines after the header."""
    if not lines:
        raise ValueError(f"{path}: lists no pictures")
    number, first = lines[0]
    if is_picture_name(first[0]) or (first[0] and (path.parent / first[0]).is_file()):
        if len(first) not in (2, 3):
            raise ValueError(f"{path}, line {number}: must be path,label or path,label,split")
        return _Columns(len(first), 0, 1, 2 if len(first) == 3 else None), lines
    headers = [header.lower() for header in first]
    at_path = _position(headers, _PATH_HEADERS)
    at_label, at_split = _position(headers, _LABEL_HEADERS), _position(headers, _SPLIT_HEADERS)
    at_path = 0 if at_path is None else at_path
    rest = [k for k in range(len(first)) if k not in (at_path, at_split)]
    if at_label is not None:
        return _Columns(len(first), at_path, at_label, at_split), lines[1:]
    if len(rest) == 1 and not multi_label:
        return _Columns(len(first), at_path, rest[0], at_split), lines[1:]
    if not multi_label:
        raise ValueError(
            f"{path}, line {number}: the header has no column called label; with one column of 0 "
            "and 1 for each class the data are multi-label (--multi_label)"
        )
    names = tuple(first[k] for k in rest)
    if not rest or len(set(names)) < len(names):
        raise ValueError(f"{path}, line {number}: the class columns must have different names")
    return _Columns(len(first), at_path, None, at_split, names, tuple(rest)), lines[1:]


def _position(headers: Sequence[str], known: Sequence[str]) -> int | None:
    return next((k for k, header in enumerate(headers) if header in known), None)


def _entry(
    path: Path, number: int, cells: list[str], columns: _Columns, multi_label: bool
) -> _Entry:
    where = f"{path}, line {number}"
    if len(cells) != columns.count:
        raise ValueError(f"{where}: has {len(cells)} columns where {columns.count} are expected")
    if not cells[columns.path]:
        raise ValueError(f"{where}: the path is empty")
    split = None
    if columns.split is not None:
        split = split_called(cells[columns.split])
        if split is None:
            raise ValueError(f"{where}: {unknown('split', cells[columns.split], SPLITS)}")
    if columns.label is None:
        labels = tuple(
            name
            for name, k in zip(columns.classes, columns.class_columns, strict=True)
            if _flag(cells[k], where, name)
        )
    else:
        labels = _labels(cells[columns.label], where, multi_label)
    return _Entry(number, cells[columns.path], labels, split)


def _flag(cell: str, where: str, name: str) -> bool:
    if cell not in ("0", "1", "0.0", "1.0"):
        raise ValueError(f"{where}: column {name!r} must be 0 or 1, not {cell!r}")
    return cell.startswith("1")


def _labels(cell: str, where: str, multi_label: bool) -> tuple[str, ...]:
    labels = tuple(x.strip() for x in cell.replace("|", ";").split(";") if x.strip())
    if multi_label:
        return labels
    if not labels:
        raise ValueError(f"{where}: the label is empty")
    if len(labels) > 1:
        raise ValueError(f"{where}: several labels in {cell!r} need --multi_label")
    return labels


def _sorted_labels(entries: list[_Entry]) -> tuple[str, ...]:
    labels = {label for entry in entries for label in entry.labels}
    try:
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    except ValueError:
        return tuple(sorted(labels))


def _parts(
    path: Path, entries: list[_Entry], classes: tuple[str, ...], multi_label: bool
) -> tuple[dict[str, StoredPictures], dict[str, str]]:
    index = {name: k for k, name in enumerate(classes)}
    parts: dict[str, StoredPictures] = {}
    origins: dict[str, str] = {}
    for split in (*SPLITS, None):
        chosen = [entry for entry in entries if entry.split == split]
        if not chosen:
            continue
        if multi_label:
            targets = np.zeros((len(chosen), len(classes)), dtype=np.float32)
            for row, entry in enumerate(chosen):
                targets[row, [index[label] for label in entry.labels]] = 1
        else:
            targets = np.array([index[entry.labels[0]] for entry in chosen], dtype=np.int64)
        name = split or "all"
        parts[name] = PictureFiles(path.parent, [entry.path for entry in chosen], targets)
        origins[name] = f"lines {split!r} of {path.name}" if split else f"file {path.name}"
    return parts, origins


def _path_problems(path: Path, entries: list[_Entry]) -> list[str]:
    problems: list[str] = []
    seen: dict[str, int] = {}
    for entry in entries:
        where = f"{path}, line {entry.line}"
        if not (path.parent / entry.path).is_file():
            problems.append(f"{where}: there is no picture {path.parent / entry.path}")
        if entry.path in seen:
            problems.append(f"{where}: {entry.path} is already in line {seen[entry.path]}")
        seen.setdefault(entry.path, entry.line)
    return problems
