"""Pictures with pseudo labels, as ``foveal train weak`` writes them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from foveal.data import pairs
from foveal.data.masks import FoundMasks
from foveal.data.splits import SPLITS

LAYOUT = "pseudo_labels"
"""Name of the layout."""

SETTINGS = "settings.json"
"""File that tells how the labels were made, and of which splits they are."""

KEY = "pseudo_labels"
"""Its key that lists those splits; the masks of other splits are the truth."""


def detect(root: Path) -> bool:
    """Return whether there are pictures and masks with a file that calls some pseudo labels."""
    return KEY in _settings(root) and pairs.detect(root)


def read(root: Path) -> FoundMasks:
    """Read pictures and masks as the layout ``pairs`` does, and say which masks are no truth.

    Raises:
        ValueError: as of that layout; there is no ``settings.json`` of pseudo labels.
    """
    settings = _settings(root)
    if KEY not in settings:
        raise ValueError(f"{root / SETTINGS}: does not tell which masks are pseudo labels")
    found = pairs.read(root)
    # Without a test part validation serves as one.
    serves = {split: split if split in found.parts else "val" for split in SPLITS}
    pseudo = tuple(split for split, part in serves.items() if part in settings[KEY])
    origins = {
        split: f"{origin}, pseudo labels" if split in pseudo else origin
        for split, origin in found.origins.items()
    }
    held_out = [split for split in ("val", "test") if split in pseudo]
    notes = [*found.notes, *settings.get("notes", [])]
    if held_out:
        notes.append(
            f"the masks of {' and '.join(held_out)} are pseudo labels, not the truth: scores on "
            "them are called pseudo"
        )
    return dataclasses.replace(found, pseudo=pseudo, origins=origins, notes=tuple(notes))


def _settings(root: Path) -> dict[str, Any]:
    """Return what the file says; nothing where there is none."""
    path = root / SETTINGS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
