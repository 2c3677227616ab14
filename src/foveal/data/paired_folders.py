"""Finding a folder of pictures and the folder of their masks or maps by the names in use."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from foveal.data.imagefolder import subfolders
from foveal.data.pictures import walk
from foveal.data.splits import SPLITS, split_called

# What the names of the two folders begin or end with, in lower case, without "_" and "-".
IMAGE_WORDS = ("image", "images", "img", "imgs", "pictures", "photos")
MASK_WORDS = ("mask", "masks", "gt", "gts", "groundtruth", "label", "labels", "annotations")


class BothFolders(NamedTuple):
    """A folder of pictures and one of masks, and what both names have beside the words."""

    images: Path
    masks: Path
    rest: str = ""

    def origin(self, root: Path) -> str:
        """Return both paths below a root in words."""
        return f"folders {self.images.relative_to(root)}/ and {self.masks.relative_to(root)}/"


def has_folders(root: Path, words: tuple[str, ...]) -> bool:
    """Return whether a folder of pictures lies beside one of masks, here or in a split's folder.

    Args:
        root: where to look.
        words: what the folders of masks are called.
    """
    return any(_candidates(folder, words) for folder in (root, *split_folders(root).values()))


def find_folders(root: Path, words: tuple[str, ...], partners: str) -> dict[str, BothFolders]:
    """Return the folders of pictures and masks of each split, or of ``all``.

    They lie in split folders (``train/images``), hold split folders (``images/train``), are called
    after splits (``train_images``), or are not divided.

    Args:
        root: where to look.
        words: what the folders of masks are called.
        partners: one of those words, for messages.

    Raises:
        ValueError: no such folders, or several.
    """
    inside = {
        split: found
        for split, folder in split_folders(root).items()
        if (found := _candidates(folder, words))
    }
    if inside:
        folders = split_folders(root)
        return {split: _only(folders[split], found, partners) for split, found in inside.items()}
    beside = _candidates(root, words)
    named = {split: [b for b in beside if split_called(b.rest) == split] for split in SPLITS}
    if any(named.values()):
        return {split: _only(root, pairs, partners) for split, pairs in named.items() if pairs}
    both = _only(root, beside, partners)
    images, masks = split_folders(both.images), split_folders(both.masks)
    divided = {s: BothFolders(images[s], masks[s]) for s in SPLITS if s in images and s in masks}
    return divided or {"all": both}


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders called after splits, training first."""
    found = {split_called(folder.name): folder for folder in reversed(subfolders(root))}
    return {split: found[split] for split in SPLITS if split in found}


def elsewhere(root: Path, used: Iterable[BothFolders]) -> list[Path]:
    """Return the files that lie outside of the folders of pictures and masks."""
    folders = {folder for both in used for folder in both[:2]}
    return [path for path in walk(root) if folders.isdisjoint(path.parents)]


def _candidates(root: Path, words: tuple[str, ...]) -> list[BothFolders]:
    """Return the folders of pictures and masks in a folder that may belong together."""
    images, masks = (
        {folder: rest for folder in subfolders(root) if (rest := _rest(folder, names)) is not None}
        for names in (IMAGE_WORDS, words)
    )
    pairs = [BothFolders(i, m, images[i]) for i in images for m in masks if images[i] == masks[m]]
    if not pairs and len(images) == len(masks) == 1:
        pairs = [BothFolders(next(iter(images)), next(iter(masks)))]
    return pairs


def _rest(folder: Path, words: tuple[str, ...]) -> str | None:
    """Return what a folder's name has beside one of the words: ``train`` of ``train_images``."""
    parts = folder.name.lower().replace("-", "_").split("_")
    if "".join(parts) in words:
        return ""
    if parts[-1] in words:
        return "_".join(parts[:-1])
    return "_".join(parts[1:]) if parts[0] in words else None


def _only(folder: Path, pairs: list[BothFolders], partners: str) -> BothFolders:
    """Return the one pair of folders whose names have nothing beside the words, or the only one."""
    if not pairs:
        raise ValueError(
            f"{folder}: there is no folder of pictures such as images/ beside one of {partners} "
            f"such as {partners}/"
        )
    chosen = [both for both in pairs if not both.rest] or pairs
    if len(chosen) > 1:
        names = ", ".join(f"{both.images.name}/ with {both.masks.name}/" for both in chosen)
        raise ValueError(
            f"{folder}: which {partners} belong to which pictures? There are {names}: only one "
            "pair of folders may be called so"
        )
    return chosen[0]
