"""Miniature data sets in temporary folders, and the real ones where they are at hand."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from foveal.data.scenes.drawn import DRAWN
from foveal.data.scenes.plan import SPLITS, plan

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
def paint_mask(tmp_path: Path) -> Painter:
    """Return a function that stores a mask whose rows are filled with the values in turn."""

    def save(name: str, values, mode: str = "L", size: tuple[int, int] = (10, 8)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = np.resize(np.asarray(values), size[1])
        pixels = np.repeat(rows[:, None], size[0], axis=1)
        image = Image.fromarray(pixels.astype(np.uint16 if mode == "I;16" else np.uint8))
        if mode == "P":
            image.putpalette([(7 * k + 90) % 256 for k in range(768)])  # colours unlike indices
        image.save(path)
        return path

    return save


@pytest.fixture
def paint_pairs(paint: Painter, paint_mask: Painter) -> Callable[..., None]:
    """Return a function that stores pictures and masks of 0, 1 and 2 in two folders."""

    def save(images: str, masks: str, stems, values=(0, 1, 2), seed: int = 0) -> None:
        for k, stem in enumerate(stems):
            paint(f"{images}/{stem}.png", seed + k)
            paint_mask(f"{masks}/{stem}.png", values)

    return save


@pytest.fixture
def write_edges(tmp_path: Path) -> Painter:
    """Return a function that stores what annotators drew as BSDS500 does, each [H, W]."""

    def save(name: str, *annotators) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = np.empty((1, len(annotators)), object)
        for k, drawn in enumerate(annotators):
            cells[0, k] = {"Segmentation": np.ones((8, 10), np.uint16), "Boundaries": drawn}
        savemat(path, {"groundTruth": cells}, do_compression=True)
        return path

    return save


@pytest.fixture
def write_skeleton(tmp_path: Path) -> Painter:
    """Return a function that stores a skeleton [H, W] as SK-LARGE does."""

    def save(name: str, drawn, **variables) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {"symmetry": drawn, "edge": np.zeros_like(drawn), **variables})
        return path

    return save


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the built-in scenes few."""
    for split, count in {"train": 6, "val": 4, "test": 4}.items():
        monkeypatch.setitem(SPLITS, split, count)
    monkeypatch.setattr(DRAWN, "_arrays", {})  # of other scenes with the same names
    monkeypatch.setattr(DRAWN, "bytes", 0)
    plan.cache_clear()
    yield
    plan.cache_clear()


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
