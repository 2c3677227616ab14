"""FGVC-Aircraft: text files of pictures and classes on three levels.

Source: Maji et al., Fine-Grained Visual Classification of Aircraft, arXiv:1306.5151.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from foveal.data.lists import read_names, read_pairs, require_apart, unlisted
from foveal.data.parts import Found, PictureFiles
from foveal.data.pictures import DamagedPictureError
from foveal.names import unknown

LABELS = ("variant", "family", "manufacturer")

_NAMES = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
_BANNER = 20  # pixels


class AircraftPictures(PictureFiles):
    """Pictures in files, each without the copyright banner in its bottom 20 rows of pixels."""

    def decode(self, index: int) -> tuple[Image.Image, str]:
        """Return a picture as RGB without its banner, and its mode in the file."""
        image, mode = super().decode(index)
        if image.height <= _BANNER:
            reason = f"{image.height} pixels high, of which {_BANNER} are to be cut off"
            raise DamagedPictureError(self.name(index), reason)
        return image.crop((0, 0, image.width, image.height - _BANNER)), mode


def detect(root: Path) -> bool:
    """Return whether a text file lies in the folder, in ``data``, or in the archive's folder."""
    return _folder(root) is not None


def read(root: Path, labels: str = "variant") -> Found:
    """Read the three splits; ``trainval`` is taken for training where it is not divided.

    Args:
        root: the folder of ``images`` and the text files, or one of the two above it.
        labels: ``variant``, ``family`` or ``manufacturer``.

    Raises:
        ValueError: a file is missing, a class is not in the list of classes, or a picture is in
            two splits.
    """
    folder = _folder(root)
    if folder is None:
        raise ValueError(
            f"{root}: no files of FGVC-Aircraft such as {_list(labels, 'train')} in it"
        )
    classes = read_names(folder / _NAMES[labels])
    sources, notes = _sources(folder, labels)
    lists = {path: read_pairs(path) for path in sources.values()}
    require_apart({str(path): pairs for path, pairs in lists.items()})
    return Found(
        root=str(folder),
        classes=classes,
        parts={s: _pictures(path, labels, lists[path], classes) for s, path in sources.items()},
        origins={split: f"file {path.name}" for split, path in sources.items()},
        notes=(
            f"the bottom {_BANNER} rows of pixels of each picture, a copyright banner, are cut off",
            *notes,
        ),
        ignored=unlisted(
            folder / "images", [f"{picture}.jpg" for pairs in lists.values() for picture in pairs]
        ),
    )


def _sources(folder: Path, labels: str) -> tuple[dict[str, Path], list[str]]:
    """Return the text file of each split, and notes."""
    train, val, both, test = (
        folder / _list(labels, word) for word in ("train", "val", "trainval", "test")
    )
    if both.is_file() and not (train.is_file() and val.is_file()):
        missing = val if train.is_file() else train
        note = f"{missing}: there is no such file, so all of {both.name} is for training"
        return {"train": both, "test": test}, [note]
    return {"train": train, "val": val, "test": test}, []


def _pictures(
    path: Path, labels: str, pairs: dict[str, str], classes: tuple[str, ...]
) -> AircraftPictures:
    index = {name: k for k, name in enumerate(classes)}
    for picture, label in pairs.items():
        if label not in index:
            message = unknown(labels, label, classes)
            raise ValueError(f"{path}: picture {picture} has an {message}")
    targets = np.array([index[label] for label in pairs.values()], dtype=np.int64)
    return AircraftPictures(path.parent / "images", [f"{p}.jpg" for p in pairs], targets)


def _folder(root: Path) -> Path | None:
    files = [_list(labels, word) for labels in LABELS for word in ("train", "trainval", "test")]
    for folder in (root, root / "data", root / "fgvc-aircraft-2013b" / "data"):
        if any((folder / name).is_file() for name in files):
            return folder
    return None


def _list(labels: str, word: str) -> str:
    return f"images_{labels}_{word}.txt"
