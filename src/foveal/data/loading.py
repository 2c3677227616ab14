"""From the pictures of a split to batches of tensors."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from foveal.data.parts import ChosenPictures, Pictures, StoredPictures
from foveal.data.pictures import DamagedPictureError
from foveal.data.sampling import BatchSampler, derive_seed

Batch = tuple[Tensor, Tensor, Tensor]


class TransformedPictures(Dataset[Batch]):
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
        self.pictures, self.transform, self.seed = pictures, transform, seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        return self._sample(self.pictures.load(index), epoch, index)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Batch] | DamagedPictureError:
        """Return the samples of one batch, or the complaint about a picture that is damaged.

        A complaint is returned, not raised: the loader would wrap an exception of a worker process
        into a page of traceback. :class:`PictureLoader` raises it.
        """
        try:
            return [self[key] for key in keys]
        except DamagedPictureError as error:
            return error

    def _sample(self, image: Image.Image, epoch: int, index: int) -> Batch:
        # The state is put back: with workers=0 this is the training process, whose own random
        # numbers must not depend on who read the pictures.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index))
            x = self.transform(image)
        return x, torch.as_tensor(self.pictures.targets[index]), torch.tensor(index)


class PictureLoader(DataLoader[Batch]):
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


def make_loader(
    dataset: TransformedPictures, batches: BatchSampler, *, workers: int, pin_memory: bool = False
) -> PictureLoader:
    """Return a loader of the sampler's batches: (x [B, C, H, W], target [B] or [B, K], index [B]).

    Its worker processes draw nothing from the training process's random state.
    """
    return PictureLoader(
        dataset,
        collate_fn=_collate,
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


@dataclass(frozen=True)
class SoundPictures:
    """A split without its damaged pictures, and the complaints about those."""

    pictures: StoredPictures
    damaged: tuple[str, ...]


def probe_all(pictures: StoredPictures, progress: Callable[[int, int], None] | None = None) -> None:
    """Look at every picture's header before time is spent on training.

    Args:
        pictures: one split.
        progress: called with (done, total) after each picture.

    Raises:
        ValueError: pictures are missing, empty or no pictures; names the first and their number.
            (Damage behind the header is found when the picture is read.)
    """
    damaged = []
    for index in range(len(pictures)):
        try:
            pictures.probe(index)
        except DamagedPictureError as error:
            damaged.append(str(error))
        if progress is not None:
            progress(index + 1, len(pictures))
    if damaged:
        raise ValueError(
            f"{damaged[0]} ({len(damaged)} of {len(pictures)} pictures will not open; `foveal data "
            "check` lists them, --data.on_error skip leaves them out)"
        )


def leave_out_damaged(
    pictures: StoredPictures, progress: Callable[[int, int], None] | None = None
) -> SoundPictures:
    """Decode every picture once and keep those that open.

    Args:
        pictures: one split.
        progress: called with (done, total) after each picture.

    Raises:
        ValueError: not one picture opens.
    """
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
        raise ValueError(f"none of the {len(pictures)} pictures opens; the first: {damaged[0]}")
    return SoundPictures(
        ChosenPictures(pictures, np.array(sound)) if damaged else pictures, tuple(damaged)
    )
