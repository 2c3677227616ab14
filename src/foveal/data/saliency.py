"""Sets of salient objects: DUTS, ECSSD, HKU-IS, PASCAL-S, DUT-OMRON and SOD.

DUTS has a part to train on; the others are there to be tested on, and all their pictures are.
"""

from pathlib import Path
from typing import NamedTuple

from foveal.data.imagefolder import subfolders
from foveal.data.maps import FoundMaps, MapFiles
from foveal.data.paired_folders import MASK_WORDS, find_folders, has_folders
from foveal.data.pairing import Paired, pair_folders, pair_stems
from foveal.data.pictures import list_pictures

# Which part the pictures of a set are, by its name in lower case without anything but letters.
_SETS = {
    "dutstr": "train",
    "dutste": "test",
    "ecssd": "test",
    "hkuis": "test",
    "pascals": "test",
    "dutomron": "test",
    "sod": "test",
}
# Folders as published that need no name above them; the rest are called like anybody's.
_PUBLISHED = (
    ("images", "ground_truth_mask"),  # ECSSD
    ("datasets/imgs/pascal", "datasets/masks/pascal"),  # PASCAL-S
    ("DUT-OMRON-image", "pixelwiseGT-new-PNG"),
)
_TOGETHER = ("imgs", "Imgs")  # may hold a picture as .jpg and its map as .png beside it


class _Set(NamedTuple):
    """A set's folders of pictures and maps, and the part that its pictures are."""

    name: str
    split: str
    pictures: Path
    maps: Path


def detect(root: Path) -> bool:
    """Return whether a folder, or one in it, has the name and the folders of a set."""
    return bool(_sets(root))


def read(root: Path) -> FoundMaps:
    """Read one set, or the two parts of DUTS side by side.

    Folders of other names are read too if one of pictures lies beside one of maps, and divided as
    their names say or not at all.

    Raises:
        ValueError: several sets without DUTS among them, or no folders of pictures and maps.
    """
    sets = _sets(root)
    notes = []
    if len(sets) > 1:
        others = [one.name for one in sets if not one.name.lower().startswith("duts")]
        if len(others) == len(sets):
            raise ValueError(f"{root}: holds several sets, {', '.join(others)}: name one of them")
        if others:
            notes = [f"beside DUTS there is {', '.join(others)}, not read: each is a root itself"]
        sets = [one for one in sets if one.name not in others]
    if not sets:
        folders = find_folders(root, MASK_WORDS, "masks").items()
        sets = [_Set(root.name, split, both.images, both.masks) for split, both in folders]
    parts, origins = {}, {}
    problems: list[str] = []
    ignored: list[str] = []
    for one in sets:
        paired = _pair(root, one)
        problems += paired.problems
        ignored += paired.ignored
        if paired.pairs:
            parts[one.split] = MapFiles(root, paired.pairs)
            folders_of = {one.pictures: None, one.maps: None}  # one, if they lie together
            names = [f"{folder.relative_to(root)}/" for folder in folders_of]
            origins[one.split] = f"folder{'s' * (len(names) - 1)} {' and '.join(names)}"
    return FoundMaps(
        root=str(root),
        parts=parts,
        origins=origins,
        problems=tuple(problems),
        notes=tuple(notes),
        ignored=tuple(ignored),
    )


def _sets(root: Path) -> list[_Set]:
    """Return the set that a folder is, or those in it."""
    here = _set_in(root)
    return [here] if here else [one for f in subfolders(root) if (one := _set_in(f))]


def _set_in(folder: Path) -> _Set | None:
    name = folder.resolve().name  # of "." or a link too
    split = _SETS.get("".join(letter for letter in name.lower() if letter.isalpha()))
    for pictures, maps in ((f"{name}-Image", f"{name}-Mask"), *_PUBLISHED):
        if (folder / pictures).is_dir() and (folder / maps).is_dir():
            usual = "test" if (pictures, maps) in _PUBLISHED else "all"
            return _Set(name, split or usual, folder / pictures, folder / maps)
    if split is None:
        return None
    if has_folders(folder, MASK_WORDS):
        both = find_folders(folder, MASK_WORDS, "masks")
        return _Set(name, split, both["all"].images, both["all"].masks) if "all" in both else None
    for together in (folder / word for word in _TOGETHER):
        if together.is_dir() and {".jpg", ".png"} <= {p.suffix for p in list_pictures(together)}:
            return _Set(name, split, together, together)
    return None


def _pair(root: Path, one: _Set) -> Paired:
    if one.pictures != one.maps:
        return pair_folders(root, one.pictures, one.maps, partner="map")
    paired = Paired(partner="map")
    files = list_pictures(one.pictures)
    pictures = {path.stem: path for path in files if path.suffix == ".jpg"}
    maps = {path.stem: path for path in files if path.suffix == ".png"}
    paired.ignored += [str(path) for path in files if path.suffix not in (".jpg", ".png")]
    pair_stems(root, pictures, maps, (one.pictures, one.maps), paired)
    return paired
