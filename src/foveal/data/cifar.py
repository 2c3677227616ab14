"""CIFAR-10 and CIFAR-100 in the pickle files of the original distribution, whole or in part.

Source: https://www.cs.toronto.edu/~kriz/cifar.html. A pickle may run any code, so these are read
by an unpickler that knows NumPy arrays and builtin containers and refuses everything else.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveal.data.parts import Found, PictureArray, StoredPictures

LABELS = ("fine", "coarse")

_SIDE = 32


def detect(root: Path) -> bool:
    """Return whether the files lie in the folder or in the folder of the original archive."""
    return bool(_folders(root))


def read(root: Path, labels: str = "fine") -> Found:
    """Read the training batches that are there and the test batch if there is one.

    Args:
        root: the folder of the files, or the one above it.
        labels: ``fine`` or ``coarse`` of CIFAR-100; CIFAR-10 has one set, taken as fine.

    Raises:
        ValueError: no such files, both CIFAR-10 and CIFAR-100, coarse labels of CIFAR-10, or a
            file that is damaged, not of this kind, or asks for more than arrays and containers.
    """
    folders = _folders(root)
    if not folders:
        raise ValueError(f"{root}: no CIFAR files such as cifar-10-batches-py/data_batch_1 in it")
    if len(folders) > 1:
        raise ValueError(f"{root}: holds CIFAR-10 and CIFAR-100: choose {folders[0]} as data.root")
    folder = folders[0]
    batches = _batches(folder)
    if batches and labels != "fine":
        raise ValueError(f"{folder}: CIFAR-10 has no {labels} labels, only one set of them")
    prefix = "" if batches else f"{labels}_"
    train = batches or [folder / "train"]
    test = folder / ("test_batch" if batches else "test")
    names, notes = _class_names(folder / ("batches.meta" if batches else "meta"), prefix)
    parts: dict[str, StoredPictures] = {"train": _read(train, len(names), prefix)}
    origins = {"train": _files(train)}
    if test.is_file():
        parts["test"] = _read([test], len(names), prefix)
        origins["test"] = _files([test])
    return Found(
        root=str(folder),
        classes=names,
        parts=parts,
        origins=origins,
        image_size=_SIDE,
        notes=tuple(notes),
    )


def _folders(root: Path) -> list[Path]:
    if _batches(root) or all((root / n).is_file() for n in ("train", "meta")):
        return [root]
    named = (root / "cifar-10-batches-py", root / "cifar-100-python")
    return [folder for folder in named if folder.is_dir() and _folders(folder)]


def _batches(folder: Path) -> list[Path]:
    numbered = {path.name.rpartition("_")[2]: path for path in folder.glob("data_batch_*")}
    return [numbered[n] for n in sorted((n for n in numbered if n.isdecimal()), key=int)]


def _class_names(meta: Path, prefix: str) -> tuple[tuple[str, ...], list[str]]:
    if not meta.is_file():
        count = {"": 10, "fine_": 100, "coarse_": 20}[prefix]
        note = f"{meta}: there is no such file, so classes are called by their numbers"
        return tuple(str(k) for k in range(count)), [note]
    key = f"{prefix}label_names"
    names = _unpickle(meta).get(key)
    if not isinstance(names, list) or not names:
        raise ValueError(f"{meta}: no list {key!r} in it")
    return tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names), []


def _read(paths: list[Path], classes: int, prefix: str) -> PictureArray:
    key = f"{prefix}labels"
    pixels, targets, sources = [], [], []
    for path in paths:
        batch = _unpickle(path)
        data, labels = _rows(batch.get("data")), batch.get(key)
        if data is None or labels is None:
            raise ValueError(f"{path}: must hold 'data', uint8 [N, {3 * _SIDE**2}], and {key!r}")
        target = np.asarray(labels)
        if target.shape != (len(data),) or target.dtype.kind not in "iu":
            raise ValueError(f"{path}: {len(data)} pictures, but labels of {list(target.shape)}")
        if target.min() < 0 or target.max() >= classes:
            raise ValueError(f"{path}: labels must be 0 to {classes - 1}, not {target.max()}")
        pixels.append(data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
        targets.append(target.astype(np.int64))
        sources.append((str(path), len(data)))
    return PictureArray(np.concatenate(pixels), np.concatenate(targets), sources)


def _rows(data: Any) -> NDArray[np.uint8] | None:
    """Return the data if they are uint8 [N, 3072] with N of at least one."""
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
        return None
    return data if len(data) and data.shape[1] == 3 * _SIDE**2 else None


def _files(paths: list[Path]) -> str:
    if len(paths) == 1:
        return f"file {paths[0].name}"
    return f"files {paths[0].name} to {paths[-1].name}"


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()  # written by Python 2
    except OSError:
        raise
    except Exception as error:  # damaged pickles raise nearly every type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: will not unpickle ({reason})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold a dict, not a {type(content).__name__}")
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): v for k, v in content.items()}


def _dtype(spec: str, align: bool = False, copy: bool = True) -> np.dtype[Any]:
    return np.dtype(spec, align=bool(align), copy=bool(copy))


def _from_buffer(
    buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any = "C"
) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes written as {encoding!r}, not latin1")
    return text.encode("latin1")


# NumPy 1 called its inner package numpy.core, NumPy 2 calls it numpy._core.
_KNOWN: dict[str, Any] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
    **dict.fromkeys(
        ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        np.empty(0).__reduce__()[0],
    ),
    **dict.fromkeys(
        ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"), _from_buffer
    ),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds NumPy arrays and builtin containers; any other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get(f"{module}.{name}")
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return known
