"""The built-in pictures: a part of Fashion-MNIST (Zalando SE, MIT licence, see ``fashion/``).

6,000 training and 2,000 test photographs of clothing, grey, 28 × 28 pixels, ten classes.
"""

import dataclasses
from pathlib import Path

from foveal.data import idx
from foveal.data.parts import Found

FOLDER = Path(__file__).parent / "fashion"

_COUNTS = {"train": 6000, "test": 2000}


def read(folder: Path = FOLDER) -> Found:
    """Read the built-in pictures.

    Raises:
        ValueError: a file is missing or damaged; the message has its path.
    """
    found = idx.read_folder(folder, idx.FASHION_CLASSES)
    for split, count in _COUNTS.items():
        if len(found.parts[split]) != count or found.image_size != 28:
            raise ValueError(
                f"{folder}: the built-in {split} part must have {count} pictures of 28 by 28 "
                f"pixels, not {len(found.parts[split])}: install foveal again"
            )
    origins = {
        split: f"built-in Fashion-MNIST, {origin}" for split, origin in found.origins.items()
    }
    return dataclasses.replace(found, root="built-in fashion", origins=origins)
