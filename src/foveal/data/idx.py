"""MNIST and its relatives: four idx files, plain or .gz.

Source: the format's description at the end of http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from foveal.data.parts import Found, PictureArray

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_PREFIXES = {"train": "train", "test": "t10k"}
_KINDS = {3: "images", 1: "labels"}


def detect(root: Path) -> bool:
    """Return whether the training pictures lie in the folder or where torchvision puts them."""
    return root.is_dir() and bool(_folders(root))


def read(root: Path) -> Found:
    """Read the training and test pictures.

    The files are looked for in the folder, in ``raw/``, and in both below one more folder, such
    as ``MNIST/raw/``. A folder called after Fashion-MNIST brings that set's class names; else
    classes are called by their numbers.

    Raises:
        ValueError: no such files, several sets, a file that is damaged or not idx, or another
            number of labels than of pictures.
    """
    folders = _folders(root)
    if not folders:
        raise ValueError(f"{root}: no idx files such as train-images-idx3-ubyte or .gz in it")
    if len(folders) > 1:
        names = " and ".join(str(folder) for folder in folders)
        raise ValueError(f"{root}: holds several idx sets: choose {names} as data.root")
    fashion = any("fashion" in part.lower() for part in folders[0].resolve().parts[-3:])
    return read_folder(folders[0], FASHION_CLASSES if fashion else None)


def read_folder(folder: Path, classes: Sequence[str] | None = None) -> Found:
    """Read the four files of one folder.

    Args:
        folder: where they lie.
        classes: class names; None: the labels' numbers.

    Raises:
        ValueError: a file is missing, damaged or not idx, or the labels do not fit.
    """
    parts, origins, top = {}, {}, 0
    for split, prefix in _PREFIXES.items():
        pixels = _read_part(folder, prefix, 3)
        labels = _read_part(folder, prefix, 1)
        path = _required(folder, prefix, 3)
        if len(pixels) != len(labels):
            raise ValueError(
                f"{path}: {len(pixels)} pictures, but {len(labels)} labels in "
                f"{_required(folder, prefix, 1).name}"
            )
        if not len(pixels):
            raise ValueError(f"{path}: holds no pictures")
        top = max(top, int(labels.max()))
        parts[split] = PictureArray(pixels, labels.astype(np.int64), [(str(path), len(pixels))])
        origins[split] = f"file {path.name}"
    names = tuple(classes) if classes is not None else tuple(str(k) for k in range(top + 1))
    if top >= len(names):
        raise ValueError(f"{folder}: there is a label {top}, but {len(names)} classes")
    sides = {side for part in parts.values() for side in part.pixels.shape[1:]}
    return Found(
        root=str(folder),
        classes=names,
        parts=parts,
        origins=origins,
        image_size=sides.pop() if len(sides) == 1 else None,
    )


def read_array(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes of one idx file, plain or .gz, as an array of ``ndim`` axes.

    Raises:
        ValueError: not idx, or another size than its header promises; the message has the path.
    """
    try:
        with cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            header = file.read(4 + 4 * ndim)
            if len(header) < 4 + 4 * ndim or header[:4] != bytes((0, 0, 8, ndim)):
                raise ValueError(
                    f"{path}: not an idx file of {_KINDS[ndim]} (it begins with {header[:4].hex()} "
                    f"instead of 000008{ndim:02x})"
                )
            shape = np.frombuffer(header[4:], dtype=">u4").tolist()
            size = math.prod(shape)
            content = _read_up_to(file, size + 1)  # one more than the header promises
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged gzip file ({error})") from error
    if len(content) != size:
        held = f"{len(content)}" if len(content) < size else f"more than {size}"
        raise ValueError(
            f"{path}: truncated or damaged: its header promises {size} bytes of data, "
            f"it holds {held}"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read_up_to(file: IO[bytes], size: int) -> bytearray:
    """Read in blocks, so that a damaged header that promises terabytes allocates none of them."""
    content = bytearray()
    while block := file.read(min(size - len(content), 1 << 24)):
        content += block
    return content


def _folders(root: Path) -> list[Path]:
    children = sorted(child for child in root.iterdir() if child.is_dir())
    for level in ([root, root / "raw"], children, [child / "raw" for child in children]):
        found = [folder for folder in level if _file(folder, "train", 3) is not None]
        if found:
            return found
    return []


def _file(folder: Path, prefix: str, ndim: int) -> Path | None:
    for separator in "-.":
        for suffix in ("", ".gz"):
            path = folder / f"{prefix}-{_KINDS[ndim]}{separator}idx{ndim}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def _required(folder: Path, prefix: str, ndim: int) -> Path:
    path = _file(folder, prefix, ndim)
    if path is None:
        missing = folder / f"{prefix}-{_KINDS[ndim]}-idx{ndim}-ubyte"
        raise ValueError(f"{missing}: there is no such file, plain or .gz")
    return path


def _read_part(folder: Path, prefix: str, ndim: int) -> NDArray[np.uint8]:
    return read_array(_required(folder, prefix, ndim), ndim)
