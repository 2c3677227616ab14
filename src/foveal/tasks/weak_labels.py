"""From what was mined to pseudo labels on disk, as the layout ``pseudo_labels`` reads them."""

import csv
import dataclasses
import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foveal.config import PseudoLabelConfig, SegmentConfig, WeakConfig
from foveal.data.label_pictures import legend, overlay, palette_picture
from foveal.data.masks import IGNORED, LabelMap, MaskedPictures, decode_mask
from foveal.data.pictures import is_turned, printable
from foveal.data.pseudo_labels import KEY, SETTINGS
from foveal.data.weak import WeakData, WeakPictures
from foveal.files import replacing
from foveal.mining import MiningResult
from foveal.mining.crf import require_crf
from foveal.mining.pseudo_labels import of_picture, pseudo_label_map
from foveal.tasks.progress import reading_bar
from foveal.tasks.run import WEIGHTS, load, read_config, write_json, write_text
from foveal.tasks.segment import probability_maps, window_of
from foveal.tasks.weak_mining import Mined, MinedSplit, weights_hash
from foveal.tasks.weak_saliency import Saliency, open_saliency
from foveal.tasks.weak_scores import MinedScores

SCORES, UNMINED, SHEET = "scores.json", "unmined.csv", "contact_sheet.png"
SHOWN = 12  # pictures of the contact sheet


def write_labels(
    config: WeakConfig,
    data: WeakData,
    mined: dict[str, MinedSplit],
    classifier: Path,
    folder: Path,
) -> None:
    """Write label maps of all mined pictures, and true ones of held-out pictures that have some.

    Each split is a folder of pictures, ``images/`` (links, or copies of those that are no files),
    and one of label maps with a palette, ``masks/``. ``settings.json`` comes last: with it the
    folder is finished. What a stopped run has written is kept.

    Args:
        config: the run.
        data: its pictures.
        mined: what was mined in them.
        classifier: run folder of the classifier.
        folder: where they are written.

    Raises:
        ImportError: the random field's library is missing.
        ValueError: a saliency map is missing or does not fit.
    """
    require_crf(config.pseudo.crf)
    labelled = [name for name in mined if name not in data.held_out]
    saliency = open_saliency(config, data, mined)
    start_labels(data, folder)
    scores, unmined = {}, []
    for name, split in mined.items():
        held = data.held_out.get(name)
        own = MinedScores(len(data.classes), config.mining.max_steps)
        masks = folder / name / "masks"
        names = file_names(data.splits[name])
        with reading_bar(f"making the {name} labels") as progress:
            for one in split:
                target = masks / f"{names[one.index]}.png" if held is None else None
                unmined += _label(config.pseudo, data, name, one, target, saliency, own)
                if target is not None:
                    place_picture(data.splits[name], one.index, folder / name, names[one.index])
                progress(one.index + 1, split.pictures)
        if held is not None:
            write_truth(data, name, held, folder)
        scores[name] = own
    _write_unmined(folder / UNMINED, unmined)
    draw_sheet(data, folder, folder / SHEET)
    write_json(folder / SCORES, {name: own.tables() for name, own in scores.items()})
    write_json(
        folder / SETTINGS,
        {
            **label_settings(data, labelled),
            "pseudo": dataclasses.asdict(config.pseudo),
            "mining": dataclasses.asdict(config.mining),
            "classifier": weights_hash(classifier),
        },
    )


def start_labels(data: WeakData, folder: Path) -> None:
    """Make the folder, with the names of the labels."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "classes.txt", "\n".join(data.classes) + "\n")


def label_settings(data: WeakData, pseudo: list[str]) -> dict[str, Any]:
    """Return what ``settings.json`` tells of any pseudo labels: of which splits they are."""
    labels = {str(k): name for k, name in enumerate(data.classes)}
    return {KEY: pseudo, "labels": {**labels, str(IGNORED): "ignored"}}


def _label(
    config: PseudoLabelConfig,
    data: WeakData,
    split: str,
    mined: Mined,
    target: Path | None,
    saliency: Saliency | None,
    scores: MinedScores,
) -> list[dict[str, Any]]:
    """Write a picture's label map, score it, and return the classes for which nothing was found."""
    pictures = data.splits[split]
    truth = pictures.truth(mined.index)
    rows = _unmined(data, split, mined)
    there = target is not None and target.is_file()
    if truth is None and (target is None or there):
        return rows
    image = pictures.load(mined.index)
    found = of_picture(mined.result, mined.number, (image.height, image.width))
    labels = None
    if target is not None and there:
        labels = decode_mask(target)[0]
    elif target is not None:
        map_ = None if saliency is None else saliency(image, pictures.name(mined.index))
        labels = pseudo_label_map(found, config, np.asarray(image), map_)
        with replacing(target) as file:
            palette_picture(labels, data.colors).save(file)
    if truth is not None:
        scores.add(truth, mined.cams, found, _after_each_step(found, config), labels)
    return rows


def _after_each_step(mined: MiningResult, config: PseudoLabelConfig) -> list[Any]:
    """Return the label maps of the first 1, 2, ... steps, by the rule for conflicts alone."""
    most = mined.config.max_steps
    taken = int(mined.steps.max()) if len(mined.steps) else 0
    maps = [mined.at_step(k).to_label_map(config.conflict)[0] for k in range(1, max(taken, 1) + 1)]
    return maps + maps[-1:] * (most - len(maps))


def _unmined(data: WeakData, split: str, mined: Mined) -> list[dict[str, Any]]:
    own = mined.result.pairs[:, 0] == mined.number
    nothing = mined.result.pairs[own][mined.result.steps[own] == 0]
    name = printable(data.splits[split].name(mined.index))
    return [
        {"split": split, "picture": name, "class": data.classes[c + 1]}
        for c in nothing[:, 1].tolist()
    ]


def _write_unmined(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["split", "picture", "class"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


# Pictures beside label maps


def file_names(pictures: Any) -> list[str]:
    """Return a file name without suffix for each picture of a split, all different."""
    names: list[str] = []
    taken: set[str] = set()
    for index in range(len(pictures)):
        stem = re.sub(r"[^\w.-]+", "_", printable(Path(pictures.name(index)).stem)).strip("_.")
        name = stem or f"{index:06d}"
        if name.lower() in taken:  # letters of both cases are the same on some disks
            name = f"{name}_{index:06d}"
        taken.add(name.lower())
        names.append(name)
    return names


def place_picture(pictures: Any, index: int, folder: Path, name: str) -> None:
    """Put a picture beside its label map: a link to its file, or a copy of what is no file.

    A picture that its EXIF orientation turns is copied as it was mined, the right way up.
    """
    source = pictures.name(index)
    file = os.path.isfile(source) and not (isinstance(pictures, WeakPictures) and is_turned(source))
    suffix = Path(source).suffix if file else ".png"
    target = folder / "images" / f"{name}{suffix}"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if file:
        try:
            target.unlink(missing_ok=True)  # a link to what has moved
            target.symlink_to(os.path.abspath(source))
        except OSError:  # a file system or a user without links
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)
    else:
        loaded = pictures.load(index)
        image = loaded if isinstance(loaded, Image.Image) else loaded[0]
        with replacing(target) as temporary:
            image.save(temporary)


def write_truth(data: WeakData, split: str, held: MaskedPictures, folder: Path) -> None:
    """Write the true masks of held-out pictures, by which a network is chosen and tested."""
    names = file_names(held)
    with reading_bar(f"writing the true {split} masks") as progress:
        for index, name in enumerate(names):
            target = folder / split / "masks" / f"{name}.png"
            if not target.is_file():
                with replacing(target) as file:
                    palette_picture(held.labels(index), data.colors).save(file)
            place_picture(held, index, folder / split, name)
            progress(index + 1, len(names))


def written(folder: Path, split: str) -> Iterator[tuple[Path, Path]]:
    """Yield the paths of the pictures of a split and of their label maps."""
    masks = {path.stem: path for path in (folder / split / "masks").glob("*.png")}
    for image in sorted((folder / split / "images").iterdir()):
        if image.stem in masks:
            yield image, masks[image.stem]


def draw_sheet(data: WeakData, folder: Path, path: Path) -> None:
    """Draw some training pictures beside themselves with their label maps laid over."""
    found = list(written(folder, "train"))
    chosen = np.linspace(0, len(found) - 1, min(SHOWN, len(found))).round().astype(int)
    columns = 4
    rows = -(-len(chosen) // columns)
    canvas = Canvas(figsize=(2 * columns * 1.5, 1.6 * rows + 0.5), layout="constrained")
    cells = canvas.subplots(rows, 2 * columns, squeeze=False)
    shown: set[int] = set()
    for axes in cells.flat:
        axes.axis("off")
    for place, index in enumerate(chosen):
        row, column = divmod(place, columns)
        image = Image.open(found[index][0]).convert("RGB")
        labels: LabelMap = decode_mask(found[index][1])[0]
        cells[row, 2 * column].imshow(image)
        cells[row, 2 * column + 1].imshow(overlay(image, labels, data.colors))
        shown |= {int(k) for k in np.unique(labels)} - {IGNORED}
    named = sorted(shown)
    canvas.legend(
        handles=legend([data.classes[k] for k in named], data.colors[named]),
        loc="outside lower center",
        ncols=8,
        fontsize=7,
        frameon=False,
    )
    with replacing(path) as file:
        canvas.savefig(file, dpi=110, facecolor="white")


# Labels of the second round


def write_predictions(
    config: WeakConfig, data: WeakData, counts: Mapping[str, int], network: Path, folder: Path
) -> None:
    """Write a trained network's label maps of pictures, of each only the classes in its labels.

    Args:
        config: the run.
        data: its pictures.
        counts: how many pictures of each split.
        network: run folder of the network.
        folder: as of :func:`write_labels`.
    """
    start_labels(data, folder)
    model: Any = load(network)
    own = read_config(network)
    assert isinstance(own, SegmentConfig)
    device = torch.device("cpu")
    if config.device != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda")
        model.to(device)
    window = window_of(own, model.preprocess)
    labelled = [name for name in data.parts if name not in data.held_out]
    for split in data.parts:
        if split in data.held_out:
            write_truth(data, split, data.held_out[split], folder)
            continue
        pictures = data.splits[split]
        names = file_names(pictures)
        with reading_bar(f"predicting the {split} labels") as progress:
            for index in range(counts[split]):
                target = folder / split / "masks" / f"{names[index]}.png"
                if not target.is_file():
                    x = model.preprocess(pictures.load(index)).to(device)
                    with torch.inference_mode():
                        (found,) = probability_maps(model, [x], own, window)
                    labels = _restricted(found, pictures.targets[index], config.pseudo.empty)
                    with replacing(target) as file:
                        palette_picture(labels, data.colors).save(file)
                place_picture(pictures, index, folder / split, names[index])
                progress(index + 1, counts[split])
    draw_sheet(data, folder, folder / SHEET)
    predicted_by = hashlib.sha256((network / WEIGHTS).read_bytes()).hexdigest()
    write_json(folder / SETTINGS, {**label_settings(data, labelled), "predicted_by": predicted_by})


def _restricted(probabilities: Tensor, shown: NDArray[np.float32], empty: str) -> LabelMap:
    """Return the most probable of the background and the classes shown, uint8 [H, W].

    Args:
        probabilities: [K + 1, H, W].
        shown: classes in the picture's labels, [K].
        empty: what a picture without any becomes.
    """
    if empty == "ignore" and not shown.any():
        return np.full(probabilities.shape[1:], IGNORED, np.uint8)
    allowed = torch.from_numpy(np.flatnonzero(np.concatenate([[1], shown])))
    best = probabilities.cpu()[allowed].argmax(0)
    return allowed[best].to(torch.uint8).numpy()
