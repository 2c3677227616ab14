"""Writing a file whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def with_suffix(path: Path, suffix: str) -> Path:
    """Return ``path`` with ``suffix`` added if it has none.

    Raises:
        ValueError: it has another suffix.
        OSError: it is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder: name a file, such as {path / 'model'}{suffix}"
        )
    if not path.suffix:
        return path.with_name(path.name + suffix)
    if path.suffix != suffix:
        raise ValueError(f"the file's name must end in {suffix}, not {path.suffix}: {path}")
    return path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target`` that takes its place when the block succeeds.

    If the block raises, the temporary file is removed and ``target`` stays as it was. Missing
    folders are made. The temporary path keeps the suffix, which some writers look at.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
