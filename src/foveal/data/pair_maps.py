"""A folder of pictures beside a folder of maps with equal stems, one for each task or one alone."""

from pathlib import Path

from foveal.config import DENSE_TASKS
from foveal.data.maps import FoundMaps, MapFiles
from foveal.data.paired_folders import MASK_WORDS, elsewhere, find_folders, has_folders
from foveal.data.pairing import pair_folders

# What the folder of a task's maps may be called; any task's, where it is the only one.
_WORDS = {
    "saliency": ("saliency", "salient"),
    "edge": ("edge", "edges", "boundary", "boundaries", "contour", "contours"),
    "skeleton": ("skeleton", "skeletons", "symmetry"),
}
_ANY_WORDS = ("map", "maps", *MASK_WORDS)


def detect(root: Path) -> bool:
    """Return whether a folder of pictures lies beside one of maps, here or in a split's folder."""
    return any(has_folders(root, words) for words in (_ANY_WORDS, *_WORDS.values()))


def tasks_in(root: Path) -> tuple[str, ...]:
    """Return the tasks that have a folder of maps called after them."""
    return tuple(task for task in DENSE_TASKS if has_folders(root, _WORDS[task]))


def read(root: Path, task: str) -> FoundMaps:
    """Pair pictures and maps of a task by their stems; subfolders are followed.

    Beside ``images`` the maps lie in ``saliency``, ``edge`` or ``skeleton``, so that one set can
    have all three; or in ``maps``, ``masks``, ``gt`` and the like, which serve any task.

    Args:
        root: the folder.
        task: ``saliency``, ``edge`` or ``skeleton``.

    Raises:
        ValueError: no folder, or several, of pictures or maps.
    """
    words = _WORDS[task] if has_folders(root, _WORDS[task]) else _ANY_WORDS
    if words is _ANY_WORDS and not has_folders(root, words):
        raise ValueError(
            f"{root}: there is no folder of pictures such as images/ beside one of maps such as "
            f"{task}/"
        )
    folders = find_folders(root, words, "maps")
    paired = {
        split: pair_folders(root, both.images, both.masks, partner=f"{task} map")
        for split, both in folders.items()
    }
    of_others = [w for other in DENSE_TASKS if other != task for w in _WORDS[other]]
    strays = [
        path
        for path in elsewhere(root, folders.values())
        if not {part.lower() for part in path.relative_to(root).parts} & {*of_others, *MASK_WORDS}
    ]
    return FoundMaps(
        root=str(root),
        parts={split: MapFiles(root, part.pairs) for split, part in paired.items() if part.pairs},
        origins={s: folders[s].origin(root) for s, part in paired.items() if part.pairs},
        problems=tuple(p for part in paired.values() for p in part.problems),
        ignored=(
            *(p for part in paired.values() for p in part.ignored),
            *(str(path) for path in strays),
        ),
    )
