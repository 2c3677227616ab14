"""From the pictures of a split to batches of tensors."""

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from foveal.data.joint import JointPictures
from foveal.data.maps import FloatMap
from foveal.data.masks import ChosenMasks, LabelMap, MaskedPictures
from foveal.data.parts import ChosenPictures, Pictures, StoredPictures
from foveal.data.pictures import DamagedPictureError
from foveal.data.sampling import TrainingBatches, derive_seed

Batch = tuple[Tensor, Tensor, Tensor]
DenseBatch = tuple[Tensor, dict[str, Tensor], Tensor]


class _Samples(Dataset[Any]):
    """Samples whose randomness is fixed by (seed, epoch, index)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def _sample(self, index: int) -> tuple[Tensor, Any]:
        """Return (x, target) of a picture; draws from torch's global generator."""
        raise NotImplementedError

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Any, Tensor]:
        epoch, index = key
        # The state is put back: with workers=0 this is the training process, whose own random
        # numbers must not depend on who read the pictures.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index))
            x, target = self._sample(index)
        return x, target, torch.tensor(index)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Any] | DamagedPictureError:
        """Return the samples of one batch, or the complaint about a picture that is damaged.

        A complaint is returned, not raised: the loader would wrap an exception of a worker process
        into a page of traceback. :class:`PictureLoader` raises it.
        """
        try:
            return [self[key] for key in keys]
        except DamagedPictureError as error:
            return error


class TransformedPictures(_Samples):
    """Pictures as tensors, each sample's randomness fixed by (seed, epoch, index).

    Args:
        pictures: one split.
        transform: makes a [C, H, W] tensor from a picture; may draw from torch's global generator.
        seed: seed of the run.

    Shape:
        item: (x float32 [C, H, W], target int64 [] or float32 [K], index int64 []).
    """

    def __init__(
        self, pictures: Pictures, transform: Callable[[Image.Image], Tensor], seed: int = 0
    ) -> None:
        super().__init__(seed)
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def _sample(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.transform(self.pictures.load(index))
        return x, torch.as_tensor(self.pictures.targets[index])


class TransformedMasks(_Samples):
    """Pictures and their label maps as tensors, randomness fixed by (seed, epoch, index).

    Args:
        pictures: one split.
        transform: makes (x, target) from a picture and its label map; may draw from torch's global
            generator.
        seed: seed of the run.

    Shape:
        item: (x float32 [C, H, W], target int64 [H, W], index int64 []).
    """

    def __init__(
        self,
        pictures: MaskedPictures,
        transform: Callable[[Image.Image, LabelMap], tuple[Tensor, Tensor]],
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def _sample(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(*self.pictures.load(index))


class TransformedMaps(_Samples):
    """Pictures and their maps as tensors, randomness fixed by (seed, epoch, index).

    Args:
        pictures: one split of one or several sets.
        transform: makes (x, targets) from a picture and its maps by task; may draw from torch's
            global generator.
        seed: seed of the run.

    Shape:
        item: (x float32 [C, H, W], task → float32 [1, H, W], index int64 []).
    """

    def __init__(
        self,
        pictures: JointPictures,
        transform: Callable[
            [Image.Image, Mapping[str, FloatMap]], tuple[Tensor, dict[str, Tensor]]
        ],
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def _sample(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.transform(*self.pictures.load(index))


class MapsToScore(_Samples):
    """Whole pictures as tensors, each with all that is known of its pixels.

    Args:
        pictures: one split of one or several sets.
        preprocess: makes a [C, H, W] tensor from a picture.

    Shape:
        item: (x float32 [C, H, W], task → truth of the tasks that the picture has, index int64 []);
        of saliency float32 [H, W] in [0, 1], of edges and skeletons what each of A annotators drew,
        bool [A, H, W].
    """

    def __init__(
        self, pictures: JointPictures, preprocess: Callable[[Image.Image], Tensor]
    ) -> None:
        super().__init__(seed=0)
        self.pictures, self.preprocess = pictures, preprocess

    def __len__(self) -> int:
        return len(self.pictures)

    def _sample(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, truths = self.pictures.decode(index)
        return self.preprocess(image), {
            task: torch.from_numpy(truth.map if task == "saliency" else np.stack(truth.annotations))
            for task, truth in truths.items()
        }


class PictureLoader(DataLoader[Any]):
    """A DataLoader that raises what its worker processes complain about, as they said it."""

    def __iter__(self) -> Any:
        """Yield the batches.

        Raises:
            DamagedPictureError: a picture does not open.
        """
        for batch in super().__iter__():
            if isinstance(batch, DamagedPictureError):
                raise batch
            yield batch


def _collate(samples: Any) -> Any:
    return samples if isinstance(samples, DamagedPictureError) else default_collate(samples)


def _collate_apart(samples: Any) -> Any:
    if isinstance(samples, DamagedPictureError):
        return samples
    pictures, targets, indices = zip(*samples, strict=True)
    return list(pictures), list(targets), torch.stack(indices)


def make_loader(
    dataset: TransformedPictures | TransformedMasks | TransformedMaps | MapsToScore,
    batches: TrainingBatches,
    *,
    workers: int,
    pin_memory: bool = False,
    stacked: bool = True,
) -> PictureLoader:
    """Return a loader of the sampler's batches: (x [B, C, H, W], target [B, ...], index [B]).

    Its worker processes draw nothing from the training process's random state.

    Args:
        dataset: the samples.
        batches: which of them form which batch.
        workers: processes that read pictures; 0 reads in this one.
        pin_memory: whether the batches go to a GPU.
        stacked: False keeps pictures and targets as lists of B tensors, whose sizes may differ.
    """
    return PictureLoader(
        dataset,
        collate_fn=_collate if stacked else _collate_apart,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_to_trainer,
        generator=torch.Generator().manual_seed(0),
    )


def _leave_signals_to_trainer(worker: int) -> None:
    """Heed no signal but the training process's.

    Ctrl-C reaches the whole process group, and torchrun and cluster schedulers send SIGTERM to it:
    the training process still needs pictures to come to a point where it can save. Its own SIGTERM
    must not be ignored: Python's exit sends one to each worker that is left and waits for its end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none: there any SIGTERM ends us
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_trainer_says, daemon=True).start()


def _end_when_trainer_says() -> None:
    trainer = os.getppid()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)


class _Openable(Protocol):
    """Pictures of any kind, as far as looking for damage goes."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Any: ...


P = TypeVar("P", bound=_Openable)


@dataclass(frozen=True)
class SoundPictures(Generic[P]):
    """A split without its damaged pictures, and the complaints about those."""

    pictures: P
    damaged: tuple[str, ...]


def probe_all(
    count: int,
    look: Callable[[int], object],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Look at every picture before time is spent on training.

    Args:
        count: number of pictures of a split.
        look: called with each index; raises DamagedPictureError for a picture that cannot be used.
        progress: called with (done, total) after each picture.

    Raises:
        ValueError: names the first that cannot be used, and their number.
    """
    damaged = []
    for index in range(count):
        try:
            look(index)
        except DamagedPictureError as error:
            damaged.append(str(error))
        if progress is not None:
            progress(index + 1, count)
    if damaged:
        raise ValueError(
            f"{damaged[0]} ({len(damaged)} of {count} pictures cannot be used; `foveal data check` "
            "lists them, --data.on_error skip leaves them out)"
        )


def leave_out_damaged(
    pictures: StoredPictures, progress: Callable[[int, int], None] | None = None
) -> SoundPictures[StoredPictures]:
    """Decode every picture once and keep those that open.

    Args:
        pictures: one split.
        progress: called with (done, total) after each picture.

    Raises:
        ValueError: not one picture opens.
    """
    return _sound(pictures, progress, ChosenPictures)


def leave_out_damaged_masks(
    pictures: MaskedPictures, progress: Callable[[int, int], None] | None = None
) -> SoundPictures[MaskedPictures]:
    """Decode every picture and mask once and keep those that open and fit.

    Args:
        pictures: one split.
        progress: called with (done, total) after each picture.

    Raises:
        ValueError: not one picture opens and fits its mask.
    """
    return _sound(pictures, progress, ChosenMasks)


def leave_out_damaged_maps(
    pictures: JointPictures, progress: Callable[[int, int], None] | None = None
) -> SoundPictures[JointPictures]:
    """Decode every picture and all its maps once and keep those that open and fit.

    Args:
        pictures: one split.
        progress: called with (done, total) after each picture.

    Raises:
        ValueError: not one picture opens and fits its maps.
    """
    return _sound(pictures, progress, JointPictures.choose)


def _sound(
    pictures: P,
    progress: Callable[[int, int], None] | None,
    choose: Callable[[P, NDArray[np.int64]], P],
) -> SoundPictures[P]:
    sound, damaged = [], []
    for index in range(len(pictures)):
        try:
            pictures.load(index)
            sound.append(index)
        except DamagedPictureError as error:
            damaged.append(str(error))
        if progress is not None:
            progress(index + 1, len(pictures))
    if not sound:
        raise ValueError(
            f"none of the {len(pictures)} pictures can be used; the first: {damaged[0]}"
        )
    return SoundPictures(choose(pictures, np.array(sound)) if damaged else pictures, tuple(damaged))
