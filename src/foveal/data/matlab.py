"""Variables of MATLAB files, read by SciPy.

Reading runs no code of the file. But SciPy's reader is not hardened: a file that somebody has
tampered with can end the process. (What it compresses has a checksum, and cut files raise errors.)
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_mat(path: Path, *names: str) -> list[Any]:
    """Return the variables of these names; axes of length one are dropped.

    Raises:
        ValueError: no such file, not a MATLAB file of version 4 to 7, damaged, or a variable is
            not in it.
    """
    from scipy.io import loadmat

    try:
        with path.open("rb") as file:
            content = loadmat(file, squeeze_me=True, variable_names=names)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file") from error
    except Exception as error:  # damaged files raise nearly every type
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the machine's trouble, not the file's
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: will not read as a MATLAB file ({reason})") from error
    for name in names:
        if name not in content:
            raise ValueError(f"{path}: no variable {name!r} in it")
    return [content[name] for name in names]


def whole_numbers(path: Path, name: str, values: Any, top: int) -> NDArray[np.int64]:
    """Return numbers from a MATLAB file, which may be stored as floats, as int64 [N].

    Args:
        path: the file, for messages.
        name: what they are called there.
        values: a number or a row of them.
        top: they must be 1 to this.

    Raises:
        ValueError: other values, or none.
    """
    try:
        numbers = np.atleast_1d(np.asarray(values))
    except ValueError:  # rows of different lengths
        numbers = np.empty(0)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iuf":
        raise ValueError(f"{path}: {name!r} must be a row of numbers")
    wrong = numbers[~((numbers >= 1) & (numbers <= top) & (numbers == np.rint(numbers)))]
    if len(wrong):
        raise ValueError(f"{path}: {name!r} must be whole numbers from 1 to {top}, not {wrong[0]}")
    return numbers.astype(np.int64)
