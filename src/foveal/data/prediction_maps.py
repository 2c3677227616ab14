"""Maps that some program predicted, one file a picture, to be scored against the truth."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal.data.pictures import DamagedPictureError, is_picture_name, opened, printable, walk


def find_prediction_maps(folder: Path, pictures: Sequence[str]) -> list[Path]:
    """Return the file of each picture's map: the one of equal stem, in any subfolder.

    Of several with that stem the one counts whose folders agree most with the picture's, from the
    file upwards: ``val/0001.npy`` for ``images/val/0001.jpg``. Maps of other pictures may be there.

    Args:
        folder: where the maps are, picture files or ``.npy``.
        pictures: paths.

    Raises:
        ValueError: no such folder, a picture without a map, with several equally good ones, or a
            map that would serve two pictures.
    """
    if not folder.is_dir():
        raise ValueError(f"{printable(folder)}: there is no such folder")
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in walk(folder):
        if is_picture_name(path.name) or path.suffix.lower() == ".npy":
            by_stem[path.stem].append(path)
    found: list[Path] = []
    serves: dict[Path, str] = {}
    for picture in pictures:
        maps = by_stem.get(Path(picture).stem, [])
        if not maps:
            raise ValueError(
                f"{printable(folder)}: there is no map of {printable(picture)}; "
                f"{printable(Path(picture).stem)}.png or .npy is expected"
            )
        agreement = [_equal_folders(path.relative_to(folder), Path(picture)) for path in maps]
        best = [m for m, a in zip(maps, agreement, strict=True) if a == max(agreement)]
        if len(best) > 1:
            raise ValueError(
                f"{printable(picture)}: there are several maps of it, "
                f"{' and '.join(printable(path) for path in best[:2])}"
            )
        if best[0] in serves:
            raise ValueError(
                f"{printable(best[0])}: two pictures have this name, "
                f"{printable(serves[best[0]])} and {printable(picture)}; put the maps into folders "
                "as the pictures are"
            )
        serves[best[0]] = picture
        found.append(best[0])
    return found


def read_prediction_map(path: str | os.PathLike[str], *, inverted: bool = False) -> NDArray[Any]:
    """Return a predicted map as it is stored: uint8, uint16, bool or floats, [H, W].

    Of a palette picture the colours count, and three equal channels are one. Values are not looked
    at; 255, 65535 or 1.0 is certain, by type.

    Args:
        path: a picture file of one channel, 8 or 16 bits or floats; or an array [H, W], or with
            axes of length 1 before, in a ``.npy`` file.
        inverted: 0 is certain in it, as in maps that are drawn dark on white.

    Raises:
        DamagedPictureError: it does not open, has colours, or is no [H, W] of such a type.
    """
    values = _read_array(path) if os.fspath(path).lower().endswith(".npy") else _read_picture(path)
    if not inverted:
        return values
    if values.dtype.kind == "u":
        return np.iinfo(values.dtype).max - values
    return np.asarray(~values if values.dtype.kind == "b" else 1 - values)


def _read_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DamagedPictureError(path, "there is no such file") from error
    except (EOFError, ValueError) as error:
        raise DamagedPictureError(path, "not a NumPy array, or damaged") from error
    if not isinstance(values, np.ndarray):
        raise DamagedPictureError(path, "is a .npz file of several arrays")
    while values.ndim > 2 and len(values) == 1:
        values = values[0]
    if values.ndim != 2 or not (values.dtype.kind in "fb" or values.dtype in (np.uint8, np.uint16)):
        raise DamagedPictureError(
            path,
            f"is {values.dtype} {list(values.shape)}, but a map is uint8, uint16, bool or float "
            "[H, W]",
        )
    return np.asarray(values)


def _read_picture(path: str | os.PathLike[str]) -> NDArray[Any]:
    with opened(path) as stored:
        values = _one_channel(path, stored)
        if values.dtype.kind == "i":  # how Pillow opens some files of 16 bits
            if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
                raise DamagedPictureError(path, "has values outside of 0 to 65535")
            values = values.astype(np.uint16)
        return values


def _one_channel(path: str | os.PathLike[str], stored: Image.Image) -> NDArray[Any]:
    if stored.mode in ("1", "L", "F") or stored.mode.startswith("I"):
        values = np.asarray(stored)
        return values.astype(values.dtype.newbyteorder("="))
    pixels = np.asarray(stored.convert("RGBA"))
    if (pixels[..., 3] != 255).any():
        raise DamagedPictureError(path, "has transparent pixels, where a map has grey ones")
    if (pixels[..., :1] != pixels[..., 1:3]).any():
        raise DamagedPictureError(path, f"has colours (mode {stored.mode}), where a map is grey")
    return np.asarray(pixels[..., 0])


def _equal_folders(path: Path, picture: Path) -> int:
    """Return how many folders of both agree, from the file upwards."""
    pairs = list(zip(path.parts[-2::-1], picture.parts[-2::-1], strict=False))
    equal = [a == b for a, b in pairs]
    return equal.index(False) if False in equal else len(equal)
