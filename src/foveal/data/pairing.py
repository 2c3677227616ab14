"""Finding the mask or map of each picture, by equal stems or lists; those without one are named.

A stem is a path below the folder without its suffix: ``berlin/0001`` of ``berlin/0001.png``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from foveal.data.lists import read_lines
from foveal.data.pictures import is_picture_name, printable, walk


@dataclass
class Paired:
    """Pictures with their masks, and what is wrong with the rest.

    Attributes:
        pairs: (picture, mask), relative to the root.
        problems: a sentence for each picture or mask without partner.
        ignored: files that are no pictures.
        partner: what a picture's partner is called in messages.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    partner: str = "mask"


def pair_folders(
    root: Path,
    pictures: Path,
    masks: Path,
    *,
    partner: str = "mask",
    is_partner: Callable[[str], bool] = is_picture_name,
) -> Paired:
    """Pair the pictures of two folders and their subfolders by equal stems, in sorted order.

    Args:
        root: folder that both are below.
        pictures: folder of the pictures.
        masks: folder of the masks; there need not be one.
        partner: what the masks are called in messages.
        is_partner: whether a file of the masks' folder, by its name, is a mask.
    """
    paired = Paired(partner=partner)
    by_stem = _by_stem(pictures, paired, is_picture_name)
    pair_stems(root, by_stem, _by_stem(masks, paired, is_partner), (pictures, masks), paired)
    return paired


def pair_stems(
    root: Path,
    pictures: Mapping[str, Path],
    masks: Mapping[str, Path],
    folders: tuple[Path, Path],
    paired: Paired,
) -> None:
    """Add the pairs of equal stems, and a problem for each picture or mask without partner.

    Args:
        root: folder that all are below.
        pictures: by stem.
        masks: by stem.
        folders: where both were looked for.
        paired: what is added to.
    """
    for stem in sorted({*pictures, *masks}):
        if stem not in masks:
            paired.problems.append(
                f"{printable(pictures[stem])}: there is no {paired.partner} {printable(stem)} in "
                f"{folders[1]}"
            )
        elif stem not in pictures:
            paired.problems.append(
                f"{printable(masks[stem])}: there is no picture {printable(stem)} in {folders[0]}"
            )
        else:
            picture, mask = (str(f[stem].relative_to(root)) for f in (pictures, masks))
            paired.pairs.append((picture, mask))


def listed_pairs(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield picture and mask of each line of a list: paths, or one id and None.

    Of a path only folder and file count, since lists often hold paths of the authors' machine.

    Raises:
        ValueError: no such file, not text, empty, or a line of more than two words.
    """
    for line in read_lines(path):
        words = line.split()
        if len(words) > 2:
            raise ValueError(
                f"{path}: the line {line!r} has {len(words)} columns, where an id, or a picture "
                "and a mask are expected"
            )
        if len(words) == 1:
            yield words[0], None
        else:
            picture, mask = (str(PurePosixPath(*PurePosixPath(w).parts[-2:])) for w in words)
            yield picture, mask


def require_files(root: Path, source: Path, paired: Paired) -> None:
    """Leave out pairs of a list of which a file is missing, and add a problem for each.

    Args:
        root: folder that the paths are relative to.
        source: the list.
        paired: what is changed.
    """
    complete = []
    for pair in paired.pairs:
        missing = next((name for name in pair if not (root / name).is_file()), None)
        if missing is None:
            complete.append(pair)
        else:
            kind = "picture" if missing == pair[0] else paired.partner
            paired.problems.append(f"{source}: there is no {kind} {printable(root / missing)}")
    paired.pairs = complete


def _by_stem(folder: Path, paired: Paired, is_wanted: Callable[[str], bool]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in walk(folder) if folder.is_dir() else ():
        stem = str(path.relative_to(folder).with_suffix(""))
        if not is_wanted(path.name):
            paired.ignored.append(str(path))
        elif stem in found:
            paired.problems.append(
                f"{printable(path)}: {printable(found[stem].name)} beside it has the same stem"
            )
        else:
            found[stem] = path
    return found
