"""Oxford Flowers-102: a flat folder of numbered pictures, classes and splits in MATLAB files.

Source: Nilsback and Zisserman, Automated Flower Classification over a Large Number of Classes,
ICVGIP 2008.
"""

from pathlib import Path

from foveal.data.lists import require_apart, require_once, unlisted
from foveal.data.matlab import read_mat, whole_numbers
from foveal.data.parts import Found, PictureFiles

_FOLDER = "flowers-102"  # as torchvision calls it
_LABELS, _SPLITS = "imagelabels.mat", "setid.mat"
_IDS = {"train": "trnid", "val": "valid", "test": "tstid"}


def detect(root: Path) -> bool:
    """Return whether one of the MATLAB files lies in the folder or in ``flowers-102``."""
    return _folder(root) is not None


def read(root: Path) -> Found:
    """Read the three splits as ``setid.mat`` calls them.

    The files have no class names; torchvision's are taken.

    Args:
        root: the folder of ``jpg`` and the MATLAB files, or the one above ``flowers-102``.

    Raises:
        ValueError: a file is missing, damaged or of other contents, a number is out of range, or a
            picture is in two splits.
    """
    import foveal.torchvision_check  # noqa: F401  (before torchvision)

    # isort: split
    from torchvision.datasets import Flowers102

    folder = _folder(root)
    if folder is None:
        raise ValueError(f"{root}: no files of Flowers-102 such as {_LABELS} in it")
    classes = tuple(Flowers102.classes)
    labels_path, splits_path = folder / _LABELS, folder / _SPLITS
    (labels,) = read_mat(labels_path, "labels")
    targets = whole_numbers(labels_path, "labels", labels, len(classes)) - 1
    ids = {
        split: whole_numbers(splits_path, name, numbers, len(targets))
        for (split, name), numbers in zip(
            _IDS.items(), read_mat(splits_path, *_IDS.values()), strict=True
        )
    }
    files = {split: [f"image_{k:05}.jpg" for k in numbers] for split, numbers in ids.items()}
    for split, names in files.items():
        require_once(f"{splits_path}: {_IDS[split]}", names)
    require_apart({f"{splits_path}: {_IDS[split]}": names for split, names in files.items()})
    return Found(
        root=str(folder),
        classes=classes,
        parts={
            split: PictureFiles(folder / "jpg", names, targets[ids[split] - 1])
            for split, names in files.items()
        },
        origins={split: f"{name} of {_SPLITS}" for split, name in _IDS.items()},
        notes=(
            f"the splits are those of {_SPLITS}: some papers train on its {_IDS['test']} and test "
            f"on its {_IDS['train']}, which is another task",
        ),
        ignored=unlisted(folder / "jpg", [name for names in files.values() for name in names]),
    )


def _folder(root: Path) -> Path | None:
    for folder in (root, root / _FOLDER):
        if any((folder / name).is_file() for name in (_LABELS, _SPLITS)):
            return folder
    return None
