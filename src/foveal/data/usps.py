"""USPS handwritten digits, 16 × 16 grey, from an HDF5 file."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveal.data.parts import Found, PictureArray

_SIDE = 16
_FILE = "usps.h5"


def detect(root: Path) -> bool:
    """Return whether the path is a .h5 file, or holds ``usps.h5`` or ``USPS/usps.h5``."""
    return _find(root) is not None


def read(root: Path) -> Found:
    """Read groups ``train`` and ``test``: ``data`` float [N, 256] in [0, 1], ``target`` [N].

    Values are rounded to 8 bits.

    Raises:
        ImportError: h5py is not installed.
        ValueError: no such file, not HDF5, or other contents.
    """
    path = _find(root)
    if path is None:
        raise ValueError(f"{root}: no {_FILE} in it")
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path}: reading it needs h5py: pip install foveal[data]") from error
    parts = {}
    try:
        with h5py.File(path) as file:
            for split in ("train", "test"):
                data, target = file[split]["data"][()], file[split]["target"][()]
                parts[split] = _part(f"{path}[{split}]", np.asarray(data), np.asarray(target))
    except (OSError, KeyError) as error:
        reason = str(error).strip("'\"")
        raise ValueError(f"{path}: not the HDF5 file of USPS ({reason})") from error
    return Found(
        root=str(path),
        classes=tuple("0123456789"),
        parts=parts,
        origins={split: f"group {split} of {path.name}" for split in parts},
        image_size=_SIDE,
    )


def _find(root: Path) -> Path | None:
    if root.suffix.lower() in (".h5", ".hdf5") and root.is_file():
        return root
    for path in (root / _FILE, root / "USPS" / _FILE, root / "usps" / _FILE):
        if path.is_file():
            return path
    return None


def _part(name: str, data: NDArray[Any], target: NDArray[Any]) -> PictureArray:
    rows = len(target) if target.ndim == 1 else 0
    if not rows or data.ndim < 1 or len(data) != rows or data.size != rows * _SIDE**2:
        raise ValueError(
            f"{name}: data must be [N, {_SIDE**2}] and target [N], "
            f"not {list(data.shape)} and {list(target.shape)}"
        )
    if not (data.min() >= 0 and data.max() <= 1):
        raise ValueError(f"{name}: values must lie in [0, 1], not {data.min()} to {data.max()}")
    if target.min() < 0 or target.max() > 9:
        raise ValueError(f"{name}: labels must be 0 to 9, not {target.min()} to {target.max()}")
    pixels = np.rint(data * 255).astype(np.uint8).reshape(-1, _SIDE, _SIDE)
    return PictureArray(pixels, target.astype(np.int64), [(name, rows)])
