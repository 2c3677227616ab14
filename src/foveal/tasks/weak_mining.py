"""Mining the regions of a run's pictures, batch by batch, so that it can be stopped and go on."""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from foveal.config import WeakConfig
from foveal.data.loading import PictureLoader, TransformedPictures, make_loader
from foveal.data.parts import ChosenPictures
from foveal.data.sampling import BatchSampler
from foveal.data.transforms import Preprocess, with_channels
from foveal.data.weak import WeakData, WeakPictures
from foveal.files import replacing
from foveal.mining import MiningResult, Modulator, RegionMiner, with_activations
from foveal.mining.looking import looking
from foveal.tasks.progress import reading_bar
from foveal.tasks.run import WEIGHTS, load, write_json

SETTINGS, THRESHOLDS, SEEDS, RESULT = (
    "settings.json",
    "thresholds.json",
    "seeds.npz",
    "mining.npz",
)


@dataclass(frozen=True)
class Mined:
    """What was mined in one picture.

    Attributes:
        index: of the picture in its split.
        result: of the batch that it was mined in.
        number: of the picture in that batch.
        cams: activations of its classes before anything was hidden, [P, h, w].
    """

    index: int
    result: MiningResult
    number: int
    cams: Tensor


@dataclass(frozen=True)
class MinedSplit:
    """What was mined in a split, in a folder for each batch.

    Attributes:
        folder: of the batches.
        pictures: number of pictures that are mined.
        batch_size: pictures of a batch.
    """

    folder: Path
    pictures: int
    batch_size: int

    @property
    def batches(self) -> int:
        """Number of batches."""
        return -(-self.pictures // self.batch_size)

    @property
    def done(self) -> int:
        """Number of batches that have been mined."""
        return next(
            (k for k in range(self.batches) if not (self._batch(k) / RESULT).is_file()),
            self.batches,
        )

    def forwards(self) -> int:
        """Return how many pictures the classifier saw, in the first step each once."""
        total = self.pictures
        for batch in range(self.batches):
            with np.load(self._batch(batch) / RESULT) as file:
                total += int(file["forwards"][1:].sum())
        return total

    def save(self, batch: int, result: MiningResult, cams: Tensor) -> None:
        """Write a batch."""
        folder = self._batch(batch)
        with replacing(folder / SEEDS) as file:
            np.savez_compressed(file, cams=cams.float().cpu().numpy())
        result.save(folder)

    def __iter__(self) -> Iterator[Mined]:
        """Yield what was mined in each picture, in their order."""
        for batch in range(self.batches):
            result = MiningResult.load(self._batch(batch))
            with np.load(self._batch(batch) / SEEDS) as file:
                cams = torch.from_numpy(file["cams"])
            for number in range(result.num_images):
                own = result.pairs[:, 0] == number
                yield Mined(batch * self.batch_size + number, result, number, cams[own])

    def _batch(self, number: int) -> Path:
        return self.folder / f"{number:05d}"


def mined_splits(config: WeakConfig, data: WeakData, folder: Path) -> dict[str, MinedSplit]:
    """Return what there is, or will be, of each split; pictures that serve twice are mined once.

    With ``max_steps`` so many batches of each split are mined.
    """
    size, most = config.activation.batch_size, config.max_steps
    splits = {}
    for name in data.parts:
        count = len(data.splits[name])
        count = count if most is None else min(count, most * size)
        splits[name] = MinedSplit(folder / name, count, size)
    return splits


def mine(config: WeakConfig, data: WeakData, classifier: Path, folder: Path) -> None:
    """Mine the regions of all pictures, or those that are left.

    Args:
        config: the run.
        data: its pictures.
        classifier: run folder of the classifier.
        folder: where it is written: settings, the modulator's thresholds, and the batches of each
            split.

    Raises:
        ValueError: a classifier of other classes, or another classifier or other pictures than
            those with which the mining was begun.
    """
    network: Any = load(classifier)
    check_classes(network.classes, data.classes[1:], classifier)
    side = config.activation.image_size or network.preprocess.image_size
    _check_same(_settings(config, data, classifier, side), folder)
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    how = config.activation
    model = with_activations(network.to(device), scales=how.scales, mirror=how.flip)
    transform = _Squeezed(network.preprocess, side)
    splits = mined_splits(config, data, folder)

    def loader(name: str, start: int = 0) -> PictureLoader:
        return _loader(config, data.splits[name], splits[name], transform, start)

    modulator = _modulator(config, len(data.classes) - 1, folder).to(device)
    needed = config.mining.mode == "calibrated" and config.mining.adaptive
    if needed and not modulator.calibrated:
        with reading_bar("calibrating the modulator") as progress, warnings.catch_warnings():
            # It numbers classes, which is said by name below.
            warnings.filterwarnings("ignore", "there is no picture without class")
            modulator.calibrate(model, _told(loader("train"), splits["train"], progress))
        _say_without_threshold(modulator, data.classes[1:])
        write_json(folder / THRESHOLDS, modulator.thresholds.tolist())
    miner = RegionMiner(model, config.mining, modulator)
    for name, split in splits.items():
        if split.done == split.batches:
            continue
        with reading_bar(f"mining the {name} pictures") as progress:
            first = split.done
            for batch, (images, labels) in enumerate(_told(loader(name, first), split, progress)):
                split.save(first + batch, *_mined(miner, images.to(device), labels.to(device)))


def _mined(miner: RegionMiner, images: Tensor, labels: Tensor) -> tuple[MiningResult, Tensor]:
    """Return what is mined in a batch, and the pairs' activations of the first step, on the CPU.

    The first step of all pairs of a picture sees the same, so it is looked at once.
    """
    state = miner.start(images, labels)
    pictures, classes = state.pairs.unbind(1)
    with torch.no_grad(), looking(miner.model):
        logits, cams = miner.model(images)
    own = cams[pictures, classes].float()
    if len(state.pairs):
        miner.step(state, (logits[pictures, classes], own))
    while bool(state.active.any()) and state.step < miner.config.max_steps:
        miner.step(state)
    return _on_cpu(miner.finish(state)), own.cpu()


def _on_cpu(result: MiningResult) -> MiningResult:
    tensors = {
        f.name: value.cpu()
        for f in dataclasses.fields(result)
        if isinstance(value := getattr(result, f.name), Tensor)
    }
    return dataclasses.replace(result, **tensors)  # type: ignore[arg-type]


class _Squeezed:
    """The whole picture brought to a square, so that pictures of all sizes go into one batch."""

    def __init__(self, preprocess: Preprocess, side: int) -> None:
        self.preprocess = preprocess
        mode = InterpolationMode(preprocess.interpolation)
        self.resize = v2.Resize((side, side), mode, antialias=True)

    def __call__(self, image: Image.Image) -> Tensor:
        image = self.resize(with_channels(image, self.preprocess.channels))
        return self.preprocess.normalize(image)


def _loader(
    config: WeakConfig, pictures: WeakPictures, split: MinedSplit, transform: _Squeezed, start: int
) -> PictureLoader:
    """Return batches (x [B, C, S, S], labels [B, K], index [B]) of the pictures that are mined."""
    chosen = ChosenPictures(pictures.pictures, np.arange(split.pictures))
    batches = BatchSampler(split.pictures, split.batch_size, shuffle=False, seed=config.seed)
    batches.set_epoch(0, start=start)
    dataset = TransformedPictures(chosen, transform, config.seed)
    return make_loader(dataset, batches, workers=config.data.workers)


def _told(
    loader: PictureLoader, split: MinedSplit, progress: Callable[[int, int], None]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pictures and labels, and tell how far it is."""
    for images, labels, indices in loader:
        yield images, labels
        progress(int(indices[-1]) + 1, split.pictures)


def _modulator(config: WeakConfig, classes: int, folder: Path) -> Modulator:
    """Return the modulator, with the thresholds that were found before."""
    modulator = Modulator(classes, config.mining)
    path = folder / THRESHOLDS
    if config.mining.mode == "calibrated" and path.is_file():
        values = [torch.nan if value is None else value for value in json.loads(path.read_text())]
        modulator.thresholds.copy_(torch.tensor(values))
        modulator.calibrated.fill_(True)
    return modulator


def _say_without_threshold(modulator: Modulator, classes: tuple[str, ...]) -> None:
    lost = [name for name, t in zip(classes, modulator.thresholds.isnan(), strict=True) if t]
    if lost:
        print(
            f"every training picture that is mined shows {', '.join(lost)}: such regions are mined "
            f"while the class's probability is at least {modulator.config.keep}",
            flush=True,
        )


def check_mined_by(classifier: Path, folder: Path) -> None:
    """Raise ValueError where a folder was mined by a classifier with other weights."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if settings["classifier"] != weights_hash(classifier):
        raise ValueError(
            f"{folder} was mined by another classifier than that in {classifier}: delete it to "
            "mine again"
        )


def weights_hash(classifier: Path) -> str:
    """Return a hash of a run's weights."""
    return hashlib.sha256((classifier / WEIGHTS).read_bytes()).hexdigest()


def pictures_hash(pictures: WeakPictures) -> str:
    """Return the number of pictures and a hash of their names and labels."""
    digest = hashlib.blake2b(np.ascontiguousarray(pictures.targets).tobytes(), digest_size=8)
    for index in range(len(pictures)):
        digest.update(Path(pictures.name(index)).name.encode(errors="surrogateescape"))
    return f"{len(pictures)} pictures, {digest.hexdigest()}"


def _settings(config: WeakConfig, data: WeakData, classifier: Path, side: int) -> dict[str, Any]:
    return {
        "classifier": weights_hash(classifier),
        "pictures": {name: pictures_hash(split) for name, split in data.splits.items()},
        "mining": dataclasses.asdict(config.mining),
        "activation": {**dataclasses.asdict(config.activation), "image_size": side},
        "max_steps": config.max_steps,
    }


def _check_same(settings: dict[str, Any], folder: Path) -> None:
    """Write the settings, or see that mining was begun with the same ones.

    Raises:
        ValueError: it was not.
    """
    path = folder / SETTINGS
    now = json.loads(json.dumps(settings))
    if not path.is_file():
        write_json(path, settings)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        raise ValueError(
            f"{folder} was begun with another {', '.join(changed)}: delete this folder, and the "
            "labels and networks that came from it, to mine again"
        )


def check_classes(own: tuple[str, ...], wanted: tuple[str, ...], classifier: Path) -> None:
    """Raise ValueError where a classifier has learned other classes than those of the labels."""
    if own != wanted:
        raise ValueError(
            f"{classifier} has learned the classes {', '.join(own)}, and these pictures are "
            f"labelled with {', '.join(wanted)}: both must be the same, in one order"
        )
