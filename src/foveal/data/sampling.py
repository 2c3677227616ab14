"""Which pictures form which batch: the only sampler of the library.

The order of an epoch depends on (seed, epoch), a sample's random numbers on (seed, epoch, index),
a training step's on (seed, epoch, batch, rank). Nothing depends on how far a worker process got,
so a run can stop after any batch and go on with the same batches, whatever the worker count.
"""

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


def derive_seed(*parts: int) -> int:
    """Return a seed in [0, 2**63) that depends on every part and their order.

    Neighbouring inputs give unrelated seeds (a hash, not a sum: sums of seed, epoch and index
    would repeat one epoch's augmentation in the next).
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_torch(*parts: int) -> None:
    """Seed torch's global generators, CPU and CUDA, from the parts."""
    torch.manual_seed(derive_seed(*parts))


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) pairs for one process of several.

    Training (``shuffle=True``) permutes all pictures by (seed, epoch), deals each process the same
    number of equally large batches and leaves out the incomplete rest, so that BatchNorm never
    meets a batch of one and no process waits for another; fewer pictures than one batch of all
    processes together form one smaller batch each.

    Evaluation (``shuffle=False``) deals whole batches in order, nothing padded or left out. Batch
    j goes to process j modulo ``world_size``: every forward pass sees the pictures it would see in
    a single process, which makes the metrics of several processes equal one's to the last digit.
    (Where there are fewer batches than processes, those left over repeat one, since none may be
    without; the metrics count each picture once.)

    Args:
        size: number of pictures.
        batch_size: pictures per batch and process.
        shuffle: training order instead of evaluation order.
        seed: seed of the run.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        ValueError: ``batch_size`` below 1, or too few pictures to give each process one.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, not {batch_size}")
        least = world_size if shuffle else 1
        if size < least:
            raise ValueError(f"{size} pictures are too few for {least} process(es)")
        self.size, self.shuffle, self.seed = size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.batch_size = min(batch_size, size // least)
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and the batch of it with which the next iteration begins."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch in this process."""
        if self.shuffle:
            return self.size // (self.batch_size * self.world_size)
        return max(1, len(range(self.rank, self._batches, self.world_size)))

    @property
    def _batches(self) -> int:
        """Number of batches of all processes in evaluation."""
        return math.ceil(self.size / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches from ``start`` to the end of the epoch."""
        order = np.arange(self.size)
        if self.shuffle:
            generator = np.random.Generator(np.random.PCG64(derive_seed(self.seed, self.epoch)))
            order = generator.permutation(self.size)
        epoch, first = self.epoch, self.start
        for batch in range(first, len(self)):
            number = batch * self.world_size + self.rank
            begin = (number if self.shuffle else number % self._batches) * self.batch_size
            yield [(epoch, int(index)) for index in order[begin : begin + self.batch_size]]
