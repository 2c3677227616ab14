"""Opening pictures of every kind as RGB, or saying which one will not open and why.

Pillow warns about odd files (large ones, broken metadata) in the middle of a training run; what
matters here is refused by :class:`DamagedPictureError` and the rest is harmless, so warnings that
Pillow's own modules emit are switched off in a process that opens pictures.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

_JPEG_PNG = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng")
_OTHERS = (".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
IMAGE_SUFFIXES = frozenset({*_JPEG_PNG, *_OTHERS})

# Only these decoders: Pillow hands a PostScript file, whatever its name, to an interpreter.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # left behind by desktop systems
_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_ORIENTATION_TAG = 0x0112
_TURN = {  # EXIF 2.32, tag 274: how the stored rows and columns lie in the scene
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DamagedPictureError(ValueError):
    """A picture that will not open.

    Args:
        path: where the picture is; for an array file also which row.
        reason: why it will not open, without the path.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["DamagedPictureError"], tuple[str, str]]:
        # Worker processes send exceptions home by pickle, which would pass the message alone.
        return type(self), (self.path, self.reason)


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path as text that every file and terminal takes.

    Bytes of a name that are not UTF-8 are written as in Python's source, ``caf\udce9``.
    """
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def open_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Return a picture file as RGB, 8 bits a channel, fully decoded, the right way up.

    Transparent pixels are laid on white; 16-bit values are scaled to 8 bits; of an animation the
    first frame is taken; the EXIF orientation is applied. Colour profiles are ignored.

    Raises:
        DamagedPictureError: no such file, empty, truncated, not a picture, of more than
            ``PIL.Image.MAX_IMAGE_PIXELS`` pixels, or with values that have no defined range.
    """
    return decode(path)[0]


def decode(path: str | os.PathLike[str], *, upright: bool = True) -> tuple[Image.Image, str]:
    """Return what :func:`open_picture` does, and the picture's mode in the file.

    The mode is Pillow's word (``RGB``, ``L``, ``P``, ``CMYK``, ``I;16``), with ``, animated``
    where the file holds several frames. Without ``upright`` rows and columns stay as they are
    stored, which is how masks and boxes of a picture count them.
    """
    with opened(path) as stored:
        stored.load()
        mode = stored.mode + (", animated" if _is_animated(stored) else "")
        return (upright_rgb(stored) if upright else _to_rgb(stored)), mode


def probe(path: str | os.PathLike[str]) -> None:
    """Read a picture's header, which finds most damage in a small part of the time of decoding.

    Raises:
        DamagedPictureError: as :func:`open_picture` does, but for truncated or damaged pixels.
    """
    with opened(path):
        pass


def is_turned(path: str | os.PathLike[str]) -> bool:
    """Return whether a picture's EXIF orientation turns or mirrors what is stored; no if no file.

    Raises:
        DamagedPictureError: it will not open.
    """
    if not os.path.isfile(path):
        return False
    with opened(path) as stored:
        return _orientation(stored) in _TURN


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open a picture without decoding it; say of every error on the way what is damaged.

    Raises:
        DamagedPictureError: as :func:`open_picture`, also for what the block meets in decoding.
    """
    if _PILLOW_WARNINGS not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise DamagedPictureError(path, "the file is empty")
            with Image.open(file, formats=_FORMATS) as stored:
                _refuse_bomb(path, stored.size)
                yield stored
    except DamagedPictureError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DamagedPictureError(path, "there is no such file") from error
    except PermissionError as error:
        raise DamagedPictureError(path, "no permission to read it") from error
    except UnidentifiedImageError as error:
        raise DamagedPictureError(path, f"not a picture (of {', '.join(_FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DamagedPictureError(path, "too many pixels (a decompression bomb?)") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly every type on damaged bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the machine's trouble (too many open files, disk error), not the picture's
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedPictureError(path, f"will not decode ({reason})") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return a copy of an opened picture as :func:`open_picture` returns the file.

    Raises:
        ValueError: values that have no defined range.
        OSError: the picture is read only now, and is damaged.
    """
    return _upright(_to_rgb(image), _orientation(image))


def list_pictures(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the picture files directly in a folder, sorted by name.

    Files count by suffix (:data:`IMAGE_SUFFIXES`, upper or lower case); hidden files and the
    litter of desktop systems (``Thumbs.db``, ``.DS_Store``, ``._*``) are left out.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.is_dir())
    return [Path(folder, name) for name in names if is_visible(name) and is_picture_name(name)]


def is_picture_name(name: str) -> bool:
    """Return whether a file of this name is taken for a picture."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_visible(name: str) -> bool:
    """Return whether a file or folder of this name is looked at: not hidden, not litter."""
    return not name.startswith(".") and name.lower() not in _LITTER


def walk(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the visible files in a folder and its subfolders, in sorted order.

    Links to folders are followed, but never back into a folder on the way down.
    """
    yield from _walk(Path(folder), frozenset())


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries if is_visible(entry.name))
    for name, is_folder in found:
        if is_folder:
            yield from _walk(folder / name, above | {here})
        else:
            yield folder / name


def _refuse_bomb(path: str | os.PathLike[str], size: tuple[int, int]) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > limit:
        raise DamagedPictureError(
            path,
            f"{size[0]} by {size[1]} pixels are more than the {limit} that are opened "
            "(a decompression bomb?)",
        )


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except Exception:  # counting frames reads on to the end of a file that may be cut off
        return False


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken metadata does not spoil the pixels
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURN.get(orientation)
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale 16-bit whole numbers, or fractions in [0, 1], to uint8 [H, W]."""
    low, high = values.min(), values.max()
    top = 1.0 if values.dtype.kind == "f" else 65535.0
    if not (low >= 0 and high <= top):  # also refuses NaN
        raise ValueError(f"values from {low} to {high} where 0 to {top:g} is expected")
    return np.rint(values.astype(np.float64) * (255 / top)).astype(np.uint8)
