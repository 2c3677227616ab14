"""The table of layouts: who reads each one, for which task, and how a folder is recognised.

A new layout is one file with a ``detect`` and a ``read`` function, and one line here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from foveal.config import DENSE_TASKS
from foveal.data import (
    ade20k,
    aircraft,
    bsds500,
    camvid,
    cars,
    cifar,
    cityscapes,
    context,
    csv_labels,
    cub,
    fashion,
    flowers,
    idx,
    imagefolder,
    other_tasks,
    pair_list,
    pair_maps,
    pairs,
    pseudo_labels,
    saliency,
    scenes,
    sk_large,
    usps,
    voc,
    voc_classes,
)
from foveal.data.image_labels import in_masks
from foveal.data.imagefolder import subfolders
from foveal.data.maps import FoundMaps
from foveal.data.masks import FoundMasks
from foveal.data.parts import Found
from foveal.data.pictures import list_pictures
from foveal.data.splits import split_called
from foveal.names import nearest, unknown


@dataclass(frozen=True)
class Layout:
    """One row of the table.

    Attributes:
        title: what people call it.
        task: the word after ``foveal train``, of the task that it is made for.
        detect: tells whether a path is of this layout; None is never looked for.
        read: reads it; None where this version recognises the layout but cannot read it.
        built_in: whether it reads no folder.
        labels: names of its sets of labels, where it has several; ``read`` then takes ``labels``.
        multi_label: whether a picture may show several classes; ``read`` then takes
            ``multi_label``.
        domains: names of its domains, where it has several; ``read`` then takes ``domain``.
        maps: what ``dense`` can learn from it; where that is more than one thing, the reader takes
            ``task``.
        also: further tasks that can use it, each with its reader.
        shown: reads which classes each picture shows, for ``classify`` with several labels, where
            the layout is of another task.
    """

    title: str
    task: str
    detect: Callable[[Path], bool] | None
    read: Callable[..., Found | FoundMasks | FoundMaps] | None = None
    built_in: bool = False
    labels: tuple[str, ...] = ()
    multi_label: bool = False
    domains: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    also: Mapping[str, Callable[..., Found | FoundMasks | FoundMaps]] = field(default_factory=dict)
    shown: Callable[..., Found] | None = None

    def serves(self, task: str, *, multi_label: bool = False) -> bool:
        """Return whether the layout is one of a task's, even if it cannot be read."""
        return task == self.task or self.reader(task, multi_label=multi_label) is not None

    def reader(
        self, task: str, *, multi_label: bool = False
    ) -> Callable[..., Found | FoundMasks | FoundMaps] | None:
        """Return what reads the layout for a task, if anything does.

        Args:
            task: the word after ``foveal train``.
            multi_label: whether a picture may show several classes, in ``classify``.
        """
        if task == self.task:
            return self.read
        return self.shown if task == "classify" and multi_label else self.also.get(task)

    def choices(self, where: object, labels: str | None, domain: str | None) -> dict[str, str]:
        """Return the arguments of a reader for the labels and the domain that were asked for.

        Args:
            where: what is read, for the message.
            labels: name of a set of labels; None leaves the choice to the reader.
            domain: name of a domain; None leaves the choice to the reader.

        Raises:
            ValueError: an unknown name, or one where the layout has no choice.
        """
        chosen = {}
        for option, value, known, one in (
            ("labels", labels, self.labels, "one set of labels"),
            ("domain", domain, self.domains, "one domain"),
        ):
            if value is None:
                continue
            if not known:
                raise ValueError(
                    f"{where}: the {self.title} layout has {one}: leave out data.{option} {value!r}"
                )
            if value not in known:
                raise ValueError(unknown(option, value, known))
            chosen[option] = value
        return chosen


# In this order folders are tried: the more particular layout first.
LAYOUTS: dict[str, Layout] = {
    "fashion": Layout("built-in fashion", "classify", None, fashion.read, built_in=True),
    "scenes": Layout(
        "built-in scenes",
        "classify",
        None,
        scenes.read,
        built_in=True,
        labels=scenes.LABELS,
        multi_label=True,
        domains=tuple(scenes.DOMAINS),
        maps=DENSE_TASKS,
        also={"segment": scenes.read_masks, "dense": scenes.read_maps},
    ),
    "cifar": Layout("CIFAR", "classify", cifar.detect, cifar.read, labels=cifar.LABELS),
    "idx": Layout("MNIST", "classify", idx.detect, idx.read),
    "usps": Layout("USPS", "classify", usps.detect, usps.read),
    "cub": Layout("CUB-200-2011", "classify", cub.detect, cub.read),
    "cars": Layout("Stanford Cars", "classify", cars.detect, cars.read),
    "aircraft": Layout(
        "FGVC-Aircraft", "classify", aircraft.detect, aircraft.read, labels=aircraft.LABELS
    ),
    "flowers": Layout("Flowers-102", "classify", flowers.detect, flowers.read),
    "context": Layout(
        "Pascal Context",
        "segment",
        context.detect,
        context.read,
        labels=context.LABELS,
        shown=in_masks(context.read),
    ),
    "voc": Layout(
        "VOC", "segment", voc.detect, voc.read, labels=voc.LABELS, shown=voc_classes.read
    ),
    "voc_boxes": Layout("VOC", "detect", other_tasks.is_voc_boxes, shown=voc_classes.read),
    "coco": Layout("COCO", "detect", other_tasks.is_coco),
    "camvid": Layout("CamVid", "segment", camvid.detect, camvid.read, shown=in_masks(camvid.read)),
    "cityscapes": Layout(
        "Cityscapes", "segment", cityscapes.detect, cityscapes.read, shown=in_masks(cityscapes.read)
    ),
    "ade20k": Layout("ADE20K", "segment", ade20k.detect, ade20k.read, shown=in_masks(ade20k.read)),
    "bsds500": Layout("BSDS500", "dense", bsds500.detect, bsds500.read, maps=("edge",)),
    "sk_large": Layout("SK-LARGE", "dense", sk_large.detect, sk_large.read, maps=("skeleton",)),
    "yolo": Layout("YOLO", "detect", other_tasks.is_yolo),
    "saliency": Layout("saliency", "dense", saliency.detect, saliency.read, maps=("saliency",)),
    "pair_list": Layout(
        "list-of-pairs", "dense", pair_list.detect, pair_list.read, maps=DENSE_TASKS
    ),
    "pseudo_labels": Layout("pseudo-label", "segment", pseudo_labels.detect, pseudo_labels.read),
    "pairs": Layout(
        "image-and-mask",
        "segment",
        pair_maps.detect,
        pairs.read,
        maps=DENSE_TASKS,
        also={"dense": pair_maps.read},
        shown=in_masks(pairs.read),
    ),
    "domains": Layout("several domains", "adapt", other_tasks.is_domains),
    "csv": Layout("CSV", "classify", csv_labels.detect, csv_labels.read, multi_label=True),
    "masks": Layout("label masks", "segment", other_tasks.is_masks),
    "imagefolder": Layout("ImageFolder", "classify", imagefolder.detect, imagefolder.read),
}

# Known by files of fixed names, which a folder of several sets may hold side by side.
_WITH_FILES = ("cifar", "idx", "usps", "cub", "cars", "aircraft", "flowers")

# The root may be a file.
_FILES = ("csv", "usps", "pair_list")


def layouts_of(task: str) -> list[str]:
    """Return the names of the layouts that a task reads."""
    return [name for name, row in LAYOUTS.items() if row.reader(task) is not None]


def detect(root: Path) -> str:
    """Return the name of the layout that a path is of, whatever task it serves.

    Raises:
        FileNotFoundError: there is no such path; the message has the nearest name beside it.
        ValueError: no layout or several fit, or the data lie one folder further down.
    """
    require(root)
    found = [name for name in LAYOUTS if _is(name, root)]
    files = [name for name in found if name in _WITH_FILES]
    if len(files) > 1:
        choices = " or ".join(f"--data.layout {name}" for name in files)
        raise ValueError(f"{root}: holds several sets of pictures: choose one with {choices}")
    if {"csv", "imagefolder"} <= {*found} and not _is_main(root):
        found.remove("csv")
    only = _only_folder(root)
    if only is not None and found in ([], ["imagefolder"], ["masks", "imagefolder"]):
        below = detect(only)
        if LAYOUTS[below].task != "classify":
            return below
        raise ValueError(f"{root}: holds nothing but {only.name}/: did you mean {only}?")
    if not found:
        raise ValueError(f"{root}: {_what_is_there(root)}")
    return found[0]


def locate(
    root: str | Path | None,
    layout: str,
    task: str,
    default: str,
    *,
    multi_label: bool = False,
) -> tuple[str, Path | None]:
    """Return the layout's name and the folder or file to read, None for built-in pictures.

    A folder that holds nothing but the folder of a known layout stands for that.

    Args:
        root: folder or file; None for the built-in pictures.
        layout: name of the layout, or ``auto`` to look.
        task: the word after ``foveal train``.
        default: the built-in layout that no root stands for.
        multi_label: whether a picture may show several classes, in ``classify``.

    Raises:
        FileNotFoundError: nothing at ``root``.
        ValueError: an unknown layout, or one of another task, or one that does not fit the root.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(unknown("layout", layout, ["auto", *layouts_of(task)]))
    if layout != "auto" and not LAYOUTS[layout].serves(task, multi_label=multi_label):
        raise ValueError(
            f"layout {layout!r} is not of `foveal train {task}`: did you mean "
            f"`foveal train {LAYOUTS[layout].task}`?"
        )
    if root is None:
        name = default if layout == "auto" else layout
        if not LAYOUTS[name].built_in:
            raise ValueError(f"layout {layout!r} needs data.root: the folder or file to read")
        return name, None
    if layout != "auto" and LAYOUTS[layout].built_in:
        raise ValueError(f"layout {layout!r} is built in and reads no folder: leave out {root}")
    path = Path(root).expanduser()
    require(path)
    name = detect(path) if layout == "auto" else layout
    row = LAYOUTS[name]
    if not row.serves(task, multi_label=multi_label):
        raise ValueError(wrong_task(path, name))
    if path.is_file() and name not in _FILES:
        raise ValueError(f"{path}: the {row.title} layout is a folder, not a file")
    if name == "masks":
        raise ValueError(
            f"{path}: these look like label masks alone: they must lie in a folder such as masks/ "
            "beside one of their pictures such as images/, each called like its picture"
        )
    if row.reader(task, multi_label=multi_label) is None:
        raise ValueError(f"{path}: layout {name!r} cannot be read by this version")
    below = path
    while row.detect is not None and not row.detect(below) and (only := _only_folder(below)):
        below = only
    return name, below if row.detect is not None and row.detect(below) else path


def require(root: Path) -> None:
    """Raise FileNotFoundError, with the nearest name, where there is nothing at a path."""
    if root.exists():
        return
    siblings = [child.name for child in root.parent.iterdir()] if root.parent.is_dir() else []
    close = nearest(root.name, sorted(siblings))
    hint = f": did you mean {root.parent / close[0]}?" if close else ""
    raise FileNotFoundError(f"there is no folder or file {root}{hint}")


def wrong_task(root: Path, name: str) -> str:
    """Say in one sentence that a path was found to be of another task's layout."""
    row = LAYOUTS[name]
    if name == "masks":
        return (
            f"{root}: these pictures look like label masks: did you mean `foveal train segment`, "
            "or --data.layout imagefolder if they are pictures in class folders?"
        )
    if name == "domains":
        folders = other_tasks.domains(_deepest(root))
        names = other_tasks.in_words([folder.name for folder in folders])
        return (
            f"{root}: this looks like a set of domains ({names}): did you mean one of them, such "
            f"as {folders[0]}, or `foveal train adapt`?"
        )
    return (
        f"{root}: this looks like the {row.title} layout: did you mean `foveal train {row.task}`?"
    )


def _is(name: str, root: Path) -> bool:
    row = LAYOUTS[name]
    if row.detect is None or (root.is_file() and name not in _FILES):
        return False
    return row.detect(root)


def _is_main(root: Path) -> bool:
    """Return whether a CSV file is what describes the folder, not a list beside class folders."""
    divided = any(split_called(child.name) and subfolders(child) for child in subfolders(root))
    return not divided and csv_labels.lists_pictures(root)


def _only_folder(root: Path) -> Path | None:
    """Return the single folder in a folder without pictures, unless it is a split's."""
    folders = subfolders(root) if root.is_dir() else []
    if len(folders) != 1 or list_pictures(root) or list_pictures(folders[0]):
        return None
    return folders[0] if split_called(folders[0].name) is None else None


def _deepest(root: Path) -> Path:
    only = _only_folder(root)
    return root if only is None else _deepest(only)


def _what_is_there(root: Path) -> str:
    if root.is_file():
        return "not a .csv, .h5 or .lst file, nor a folder"
    flat = list_pictures(root)
    if flat:
        return (
            f"{len(flat)} pictures such as {flat[0].name}, but no class folders: put the pictures "
            "of each class into a folder of its own, or list them in a .csv file"
        )
    return "no pictures in it, and no data of a known layout"
