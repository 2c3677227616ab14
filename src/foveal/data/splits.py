"""Training, validation and test parts: those a layout has, and those drawn by a seed.

What is drawn depends on the pictures' order in :class:`Found` (readers sort it), the targets and
the seed, on nothing else.
"""

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from foveal.data.maps import ChosenMaps, FoundMaps, MappedPictures
from foveal.data.masks import ChosenMasks, FoundMasks, MaskedPictures
from foveal.data.parts import ChosenPictures, Found, StoredPictures

P = TypeVar("P")

SPLITS = ("train", "val", "test")

_SPLIT_WORDS = {
    "train": ("train", "training", "cars_train"),  # mirrors of Stanford Cars
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "cars_test"),
}


def split_called(word: str) -> str | None:
    """Return which split people mean by a folder name or a CSV value, or None.

    Example:
        >>> split_called("Validation"), split_called("dog")
        ('val', None)
    """
    for split, words in _SPLIT_WORDS.items():
        if word.strip().lower() in words:
            return split
    return None


def require_classes(found: Found) -> None:
    """Raise ValueError where all pictures show one class; with independent labels that may be."""
    shown = np.unique(np.concatenate([np.unique(p.targets) for p in found.parts.values()]))
    if len(shown) == 1 and not found.multi_label:
        raise ValueError(
            f"{found.root}: there is only the class {found.classes[int(shown[0])]!r}, where "
            "classification needs at least two"
        )


def make_splits(
    found: Found, val_fraction: float, test_fraction: float, seed: int
) -> tuple[dict[str, StoredPictures], dict[str, str]]:
    """Return the pictures of ``train``, ``val`` and ``test``, and where each comes from.

    Missing parts: validation is drawn from training. Testing is drawn (first) only where the
    layout does not divide its pictures or has nothing but a training part; else it is validation
    over again. Without training pictures ``train`` is empty and the data serve evaluation alone.

    Args:
        found: what a reader found.
        val_fraction: share of the training pictures, in (0, 1).
        test_fraction: share of all pictures, in (0, 1).
        seed: of both draws.

    Raises:
        ValueError: a fraction out of range, or a class with too few pictures to divide.
    """

    def drawn(pool: StoredPictures, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
        return _draw_by_class(found, pool, fraction, rng)

    fractions = (val_fraction, test_fraction)
    return _complete(found.parts, found.origins, fractions, seed, drawn, ChosenPictures)


def make_mask_splits(
    found: FoundMasks, val_fraction: float, test_fraction: float, seed: int
) -> tuple[dict[str, MaskedPictures], dict[str, str]]:
    """Do the same for pictures with masks; draws do not look at what the pictures show.

    Raises:
        ValueError: a fraction out of range, or too few pictures to divide.
    """

    def drawn(pool: MaskedPictures, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
        return _draw_any(found.root, len(pool), fraction, rng)

    fractions = (val_fraction, test_fraction)
    return _complete(found.parts, found.origins, fractions, seed, drawn, ChosenMasks)


def make_map_splits(
    found: FoundMaps, val_fraction: float, test_fraction: float, seed: int
) -> tuple[dict[str, MappedPictures], dict[str, str]]:
    """Do the same for pictures with maps; changed copies of one picture stay together.

    Raises:
        ValueError: a fraction out of range, or too few pictures to divide.
    """

    def drawn(pool: MappedPictures, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
        if not found.copies:
            return _draw_any(found.root, len(pool), fraction, rng)
        names = [PurePath(pool.name(index)).name for index in range(len(pool))]
        originals, copy_of = np.unique(names, return_inverse=True)
        chosen = _draw_any(found.root, len(originals), fraction, rng)
        return np.asarray(chosen[copy_of])

    fractions = (val_fraction, test_fraction)
    return _complete(found.parts, found.origins, fractions, seed, drawn, ChosenMaps)


def _complete(
    parts: Mapping[str, P],
    origins: Mapping[str, str],
    fractions: tuple[float, float],
    seed: int,
    drawn: Callable[[P, float, np.random.Generator], NDArray[np.bool_]],
    choose: Callable[[P, NDArray[np.int64]], P],
) -> tuple[dict[str, P], dict[str, str]]:
    """Return the three splits, as :func:`make_splits` says.

    Args:
        parts: what a layout has.
        origins: what its parts are.
        fractions: shares of the training pictures for validation, of all for testing.
        seed: of both draws.
        drawn: tells which pictures of a collection are drawn, bool [N].
        choose: makes a collection of some pictures of another.
    """
    for name, fraction in zip(("val_fraction", "test_fraction"), fractions, strict=True):
        if not 0 < fraction < 1:
            raise ValueError(f"{name} must lie between 0 and 1, not {fraction}")
    val_fraction, test_fraction = fractions
    parts, origins = dict(parts), dict(origins)
    if "train" not in parts and "all" not in parts:
        return _evaluation_only(parts, origins, choose)
    rng = np.random.default_rng(seed)

    def divide(pool: P, fraction: float) -> tuple[P, P]:
        chosen = drawn(pool, fraction, rng)
        return choose(pool, np.flatnonzero(~chosen)), choose(pool, np.flatnonzero(chosen))

    source = "all" if "all" in parts else "train"
    pool, origin = parts.pop(source), origins.pop(source)
    whole = origin
    if not parts:
        pool, parts["test"] = divide(pool, test_fraction)
        origins["test"] = f"{_percent(test_fraction)} of {whole}, drawn with seed {seed}"
        origin = f"the rest of {whole}"
    if "val" not in parts:
        pool, parts["val"] = divide(pool, val_fraction)
        origins["val"] = f"{_percent(val_fraction)} of {origin}, drawn with seed {seed}"
        origin = f"the rest of {whole}"
    if "test" not in parts:
        parts["test"] = parts["val"]
        origins["test"] = "same pictures as val (the layout has no test part)"
    parts["train"], origins["train"] = pool, origin
    return {s: parts[s] for s in SPLITS}, {s: origins[s] for s in SPLITS}


def _evaluation_only(
    parts: dict[str, P], origins: dict[str, str], choose: Callable[[P, NDArray[np.int64]], P]
) -> tuple[dict[str, P], dict[str, str]]:
    there = ", ".join(origins[s] for s in SPLITS if s in origins)
    some = next(iter(parts.values()))
    parts["train"] = choose(some, np.arange(0))
    origins["train"] = f"none: the layout has only {there}"
    for split, other in (("val", "test"), ("test", "val")):
        if split not in parts:
            parts[split] = parts[other]
            origins[split] = f"same pictures as {other} (the layout has no {split} part)"
    return {s: parts[s] for s in SPLITS}, {s: origins[s] for s in SPLITS}


def class_counts(targets: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Return the number of pictures of each class, int64 [K], from either form of targets."""
    if targets.ndim == 2:
        counts: NDArray[np.int64] = targets.sum(axis=0).astype(np.int64)
        return counts
    return np.bincount(targets.astype(np.int64), minlength=num_classes).astype(np.int64)


def class_problems(found: Found, splits: dict[str, StoredPictures]) -> list[str]:
    """Return sentences about classes that one split lacks.

    Classes of the list that no split shows are allowed: ImageNet's index has 1000 classes, a
    sample of it a few.
    """
    if not len(splits["train"]):
        return []
    counts = {s: class_counts(p.targets, len(found.classes)) for s, p in splits.items()}
    train = counts["train"] > 0
    problems = []
    for split in ("val", "test"):
        if split == "test" and splits["test"] is splits["val"]:
            continue
        present = counts[split] > 0
        for lacking, absent in (
            (f"{split} has no pictures of", train & ~present),
            (f"{split} has pictures, but train none, of", present & ~train),
        ):
            if absent.any():
                names = [found.classes[k] for k in np.flatnonzero(absent)]
                problems.append(f"{found.root}: {lacking} {_listed(names)}")
    return problems


def _draw_by_class(
    found: Found, pictures: StoredPictures, fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which pictures are drawn, of each class in the same proportion."""
    groups = _groups(pictures.targets)
    drawn = np.zeros(len(pictures), dtype=bool)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        if len(members) < 2 and not found.multi_label:
            raise ValueError(
                f"{found.root}: class {found.classes[group]!r} has too few pictures for the "
                "splits that are to be drawn from it; each split needs at least one picture"
            )
        drawn[members] = _draw(len(members), fraction, rng)
    return drawn


def _draw_any(root: str, size: int, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which of some pictures are drawn, whatever they show."""
    if size < 2:
        raise ValueError(
            f"{root}: there are too few pictures for the splits that are to be drawn from them; "
            "each split needs at least one picture"
        )
    return _draw(size, fraction, rng)


def _draw(size: int, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which of some pictures are drawn; at least one stays on either side."""
    count = min(max(int(fraction * size + 0.5), 1), size - 1)
    # Uniform floats are the part of NumPy's generators whose stream is most settled.
    order = np.argsort(rng.random(size), kind="stable")
    drawn = np.zeros(size, dtype=bool)
    drawn[order[:count]] = True
    return drawn


def _groups(targets: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each picture the class that it is drawn under, int64 [N].

    With several labels that is the rarest of them, so that rare classes reach every split; -1
    for a picture without labels.
    """
    if targets.ndim == 1:
        return targets.astype(np.int64)
    shown = targets > 0
    frequency = np.where(shown, shown.sum(axis=0), len(targets) + 1)
    return np.where(shown.any(axis=1), frequency.argmin(axis=1), -1)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def _listed(names: list[str], most: int = 10) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more classes"
