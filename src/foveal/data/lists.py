"""Text files that list pictures beside a folder of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from foveal.data.pictures import is_picture_name, walk


def read_lines(path: Path) -> list[str]:
    """Return the lines that are not blank, without the blanks around them.

    Raises:
        ValueError: no such file, not UTF-8, or nothing in it.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8 text ({error.reason})") from error
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError(f"{path}: the file is empty")
    return lines


def read_names(path: Path) -> tuple[str, ...]:
    """Return the class names of a file with one in each line.

    Raises:
        ValueError: as :func:`read_lines`, or a name that stands there twice.
    """
    names = tuple(read_lines(path))
    require_distinct(path, names)
    return names


def read_pairs(path: Path) -> dict[str, str]:
    """Return first word → rest of the line, which may hold blanks, in the file's order.

    Raises:
        ValueError: as :func:`read_lines`, a line of one word, or two that begin with the same.
    """
    pairs: dict[str, str] = {}
    for line in read_lines(path):
        key, *rest = line.split(maxsplit=1)
        if not rest:
            raise ValueError(f"{path}: the line {line!r} must have two columns")
        if key in pairs:
            raise ValueError(f"{path}: two lines begin with {key}")
        pairs[key] = rest[0]
    return pairs


def require_distinct(path: Path, names: Iterable[str]) -> None:
    """Raise ValueError where a class name of a file stands there twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{path}: the class name {name!r} stands there twice")
        seen.add(name)


def require_once(place: Path | str, pictures: Iterable[str]) -> None:
    """Raise ValueError where a list names a picture twice.

    Args:
        place: where the list stands, for the message.
        pictures: their names.
    """
    seen: set[str] = set()
    for picture in pictures:
        if picture in seen:
            raise ValueError(f"{place}: picture {picture} stands there twice")
        seen.add(picture)


def require_apart(lists: Mapping[str, Iterable[str]]) -> None:
    """Raise ValueError where a picture is in two lists, as one for training and one for testing.

    Args:
        lists: where each list stands → its pictures.
    """
    where: dict[str, str] = {}
    for place, names in lists.items():
        for name in names:
            if where.setdefault(name, place) != place:
                raise ValueError(f"{place}: picture {name} is in {where[name]} too")


def unlisted(folder: Path, listed: Iterable[str]) -> tuple[str, ...]:
    """Return the pictures in a folder and its subfolders that no list names.

    Args:
        folder: where the pictures are; there need not be one.
        listed: their paths, relative to the folder.
    """
    if not folder.is_dir():
        return ()
    paths = {folder / name for name in listed}
    return tuple(str(p) for p in walk(folder) if is_picture_name(p.name) and p not in paths)
