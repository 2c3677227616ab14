"""Which pictures form which batch: the only samplers of the library.

The order of an epoch depends on (seed, epoch), a sample's random numbers on (seed, epoch, index),
a training step's on (seed, epoch, batch, rank). Nothing depends on how far a worker process got,
so a run can stop after any batch and go on with the same batches, whatever the worker count.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
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


class MixedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Training batches of (round, index) pairs drawn from several sets with given ratios.

    The sets lie one after the other: indices of the second begin at the size of the first. Each
    step, of all processes together, holds the sets in their ratios: exactly where these give whole
    numbers of pictures, else by turns a picture more or less, so that the sums come out right.
    Each process gets its part of every set.

    An epoch draws as many pictures as all sets have together, less an incomplete last step. So a
    set may give some of its pictures to an epoch, or all of them several times; it gives each one
    before any comes again, across the ends of epochs, and every time in a new order. Rounds count
    how often a set was given whole before, so that no pair, from which a sample's augmentation is
    drawn, comes twice in a training. (Reading all
    lists in step, each modulo its length, would repeat short lists in a fixed alignment.)

    Args:
        sizes: number of pictures of each set.
        batch_size: pictures per batch and process.
        ratios: of the sets, any positive numbers; None: all equal.
        seed: seed of the run.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        ValueError: ``batch_size`` below 1, too few pictures to give each process one, an empty set,
            or ratios that are not one positive number for each set.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        *,
        ratios: Sequence[float] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, not {batch_size}")
        if not sizes or min(sizes) < 1:
            raise ValueError(f"each set needs at least one picture, not {list(sizes)}")
        total = sum(sizes)
        if total < world_size:
            raise ValueError(f"{total} pictures are too few for {world_size} process(es)")
        ratios = [1.0] * len(sizes) if ratios is None else ratios
        if len(ratios) != len(sizes) or not all(0 < ratio < math.inf for ratio in ratios):
            raise ValueError(
                f"ratios must be {len(sizes)} positive numbers, one for each set, not "
                f"{list(ratios)}"
            )
        self.sizes, self.seed = tuple(sizes), seed
        self.rank, self.world_size = rank, world_size
        self.batch_size = min(batch_size, total // world_size)
        self.epoch = 0
        self.start = 0
        steps = total // (self.batch_size * world_size)
        self._turns = _turns(ratios, steps * self.batch_size * world_size)
        self._starts = np.cumsum([0, *sizes[:-1]])

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and the batch of it with which the next iteration begins."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch in this process."""
        return len(self._turns) // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches from ``start`` to the end of the epoch."""
        order = np.empty(len(self._turns), np.int64)
        rounds = np.empty(len(self._turns), np.int64)
        for number in range(len(self.sizes)):
            places = np.flatnonzero(self._turns == number)
            drawn, rounds[places] = self._drawn(number, len(places))
            order[places] = self._starts[number] + drawn
        first = self.start
        step = self.batch_size * self.world_size
        for batch in range(first, len(self)):
            part = slice(batch * step, (batch + 1) * step)
            # Set by set, then dealt like cards: each process gets its part of every set. Who
            # begins changes, or one process would always have the first set's odd picture.
            dealt = np.argsort(self._turns[part], kind="stable")
            own = dealt[(self.rank + batch) % self.world_size :: self.world_size]
            yield list(zip(rounds[part][own].tolist(), order[part][own].tolist(), strict=True))

    def _drawn(self, number: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places in a set of its pictures in this epoch, and their rounds, [count].

        A set's pictures are an endless row of permutations, of which each epoch takes the next.
        """
        size = self.sizes[number]
        first = self.epoch * count
        rounds = range(first // size, -(-(first + count) // size))
        row = [
            np.random.Generator(np.random.PCG64(derive_seed(self.seed, number, k))).permutation(
                size
            )
            for k in rounds
        ]
        begin = first - rounds.start * size
        places = np.concatenate([np.empty(0, np.int64), *row])[begin : begin + count]
        return places, np.arange(first, first + count) // size


def _turns(ratios: Sequence[float], count: int) -> NDArray[np.int64]:
    """Return whose turn it is, int64 [count]: sets take turns as evenly as their ratios allow.

    Of a set with the share r the k-th turn is due at (k + 1/2) / r; so every stretch of n turns
    that begins at a multiple of n, with all n r whole, has exactly n r of each set.
    """
    shares = np.asarray(ratios, np.float64) / math.fsum(ratios)
    due, whose = [], []
    for number, share in enumerate(shares):
        turns = np.arange(math.ceil(count * share) + len(shares))
        due.append((turns + 0.5) / share)
        whose.append(np.full(len(turns), number))
    order = np.argsort(np.concatenate(due), kind="stable")
    return np.concatenate(whose)[order][:count]


TrainingBatches = BatchSampler | MixedBatchSampler
"""What deals the batches of an epoch."""
