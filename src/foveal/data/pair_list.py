"""A list of pictures and their maps, as the augmented BSDS500 and SK-LARGE are handed around."""

from pathlib import Path, PurePosixPath

from foveal.data.lists import read_lines
from foveal.data.maps import FoundMaps, MapFiles
from foveal.data.pairing import Paired, require_files
from foveal.data.splits import SPLITS, split_called

_SUFFIX = ".lst"
_LINES_TRIED = 100  # until files are found


def detect(root: Path) -> bool:
    """Return whether this is a list of pairs, or a folder with one such as ``train_pair.lst``."""
    lists = [root] if root.is_file() else sorted(root.glob(f"*{_SUFFIX}"))
    return any(path.suffix == _SUFFIX and _is_of_pairs(path) for path in lists)


def read(root: Path, task: str) -> FoundMaps:
    """Read ``train_pair.lst`` and its like, of which each line names a picture and its map.

    The paths are relative to the list's folder or to the one above it; or absolute on the authors'
    machine, and then as much of their end counts as is found here. Which split a list is of is
    part of its name (``bsds_pascal_train_pair.lst``); a list without a split's name is not divided.
    Pictures of one file name in different folders are taken for changed copies of one picture: a
    draw of validation pictures does not divide them.

    Args:
        root: the list, or the folder of it.
        task: what the maps show, for messages.

    Raises:
        ValueError: no list, two for one split, or a line that is no pair.
    """
    lists = _lists(root)
    folder = root.parent if root.is_file() else root
    parts, origins = {}, {}
    problems: list[str] = []
    for split, source in lists.items():
        paired = _pairs(source, task)
        require_files(folder, source, paired)
        problems += paired.problems
        if paired.pairs:
            parts[split] = MapFiles(folder, paired.pairs)
            origins[split] = f"list {source.name}"
    return FoundMaps(
        root=str(root), parts=parts, origins=origins, copies=True, problems=tuple(problems)
    )


def _lists(root: Path) -> dict[str, Path]:
    if root.is_file():
        return {_split_of(root): root}
    found: dict[str, Path] = {}
    for path in sorted(root.glob(f"*{_SUFFIX}")):
        if not _is_of_pairs(path):  # test.lst of HED-BSDS names pictures without maps
            continue
        split = _split_of(path)
        if split in found:
            raise ValueError(
                f"{root}: which list is the {split} part, {found[split].name} or {path.name}? Name "
                "one of them"
            )
        found[split] = path
    if not found:
        raise ValueError(f"{root}: there is no list such as train_pair.lst in it")
    if "all" in found and len(found) > 1:
        other = next(path for split, path in found.items() if split != "all")
        raise ValueError(
            f"{root}: {found['all'].name} beside {other.name}: its name must tell the split, as "
            "train_pair.lst does"
        )
    return {s: found[s] for s in (*SPLITS, "all") if s in found}


def _split_of(path: Path) -> str:
    words = path.stem.lower().replace("-", "_").split("_")
    return next((split for word in words if (split := split_called(word))), "all")


def _is_of_pairs(path: Path) -> bool:
    try:
        return len(read_lines(path)[0].split()) == 2
    except ValueError:
        return False


def _pairs(source: Path, task: str) -> Paired:
    paired = Paired(partner=f"{task} map")
    lines = read_lines(source)
    rows = [tuple(line.split()) for line in lines]
    for line, row in zip(lines, rows, strict=True):
        if len(row) != 2:
            raise ValueError(
                f"{source}: the line {line!r} has {len(row)} columns, where a picture and a map "
                "are expected"
            )
    above, left_out = _place(source, rows)
    for row in rows:
        picture, mapped = (
            str(PurePosixPath(above, *PurePosixPath(name).parts[left_out:])) for name in row
        )
        paired.pairs.append((picture, mapped))
    return paired


def _place(source: Path, rows: list[tuple[str, ...]]) -> tuple[str, int]:
    """Return how the paths of a list are found: what to put before them, how many parts to drop.

    The first line of which both files are there decides.
    """
    for row in rows[:_LINES_TRIED]:
        parts = [PurePosixPath(name).parts for name in row]
        for left_out in range(min(len(p) for p in parts)):
            for above in ("", ".."):
                folder = source.parent / above
                if all(folder.joinpath(*p[left_out:]).is_file() for p in parts):
                    return above, left_out
    return "", 0
