"""Miniature data sets in temporary folders, and the real ones where they are at hand."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Painter = Callable[..., Path]


@pytest.fixture
def paint(tmp_path: Path) -> Painter:
    """Return a function that stores a small picture of noise, other for each seed."""

    def save(name: str, seed: int = 0, size: tuple[int, int] = (10, 8), **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, **options)
        return path

    return save


@pytest.fixture
def paint_classes(paint: Painter) -> Callable[..., None]:
    """Return a function that fills a folder of class folders with different pictures."""

    def save(folder: str, counts: dict[str, int], seed: int = 0) -> None:
        for name, count in counts.items():
            for k in range(count):
                seed += 1
                paint(f"{folder}/{name}/{k:03}.png", seed)

    return save


@pytest.fixture
def pack() -> Callable[[str], Path]:
    """Return a function from the name of a real data set to its folder."""
    root = os.environ.get("FOVEAL_DATA_ROOT")
    if not root:
        pytest.skip("FOVEAL_DATA_ROOT is not set")

    def find(name: str) -> Path:
        path = Path(root) / name
        if not path.exists():
            pytest.skip(f"FOVEAL_DATA_ROOT has no {name}")
        return path

    return find
