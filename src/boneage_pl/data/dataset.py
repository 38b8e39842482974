"""Torch dataset of radiographs, its batches and their order."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from boneage_pl.data.sampling import draw_rows
from boneage_pl.data.transforms.compose import BITS
from boneage_pl.errors import BoneAgeError

log = logging.getLogger(__name__)


class Batch(TypedDict):
    """One batch: images with their sex, bone age and row in their side of the split."""

    # uint8 [B, 1, H, W], or int64 [B, 1] of `DeviceImages`; on the device float32 [B, C, H, W], normalized
    image: Tensor
    key: Tensor  # int64 [B], a hash of (side, seed, epoch, row) that random transforms draw from
    male: Tensor  # float32 [B], 1 or 0
    bone_age: Tensor  # float32 [B], months
    row: Tensor  # int64 [B]


SHM = Path("/dev/shm")
DEFAULT_PREFETCH = 2  # PyTorch's batches that each loader process has ready
# Batches that the training process holds: this one, the next, and one that is being page-locked.
BATCHES_IN_USE = 3
SHM_ADVICE = "docker and podman give more with --shm-size=1g (64 MiB is what a container has)"


def free_space() -> int | None:
    """Return the bytes that are free for batches; `None` where they are not kept in `/dev/shm`."""
    if sys.platform != "linux":
        return None
    try:
        return shutil.disk_usage(SHM).free
    except OSError:
        return 0


def limit_workers_by_shm(workers: int, prefetch: int, batch_bytes: int, processes: int = 1) -> int:
    """Return how many of `workers` loader processes have room for all their batches at once; say if not all.

    Both sides of a split count: where only a part of the batches is used, the rest waits while the other
    side is read.

    Args:
        workers: loader processes of each side.
        prefetch: batches that each of them has ready.
        batch_bytes: of one batch.
        processes: training processes of this machine, which share what is free.
    """
    free = free_space()
    if free is None:
        return workers
    fitting = max(0, min(workers, (free // processes // batch_bytes - BATCHES_IN_USE) // (2 * prefetch)))
    if fitting < workers:
        log.warning(
            "%d of %d loader processes: no room for the batches of more, with %d MiB free in %s;\n%s",
            fitting,
            workers,
            free >> 20,
            SHM,
            SHM_ADVICE,
        )
    return fitting


def to_shared_memory(batch: Batch) -> Batch:
    """Move a batch into shared memory in a loader process; elsewhere it stays where it is.

    PyTorch would do so itself, in a thread whose failure nobody hears of: training would wait for ever.

    Raises:
        BoneAgeError: it is full.
    """
    if get_worker_info() is None:
        return batch
    try:
        for tensor in batch.values():
            tensor.share_memory_()  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise BoneAgeError(
            f"There is no room for the loader processes' batches in {SHM}.\n"
            f"Take fewer with data.num_workers=1, or none with data.num_workers=0;\n{SHM_ADVICE}."
        ) from error
    return batch


Key = tuple[int, int]  # a row of one side of a split, and the epoch that it is read in


class EpochBatchSampler(Sampler[list[Key]]):
    """Yields batches of keys: in an order that depends on (seed, epoch) alone, or in the plain one.

    Every process of a distributed run draws the same batches and keeps its share of each. Lightning calls
    `set_epoch`; the epoch travels with the row, so that a worker that outlives the epoch has the right one.
    In training all shares of a batch are equal: what is left of the last one is dropped, and all of it where
    it has fewer than half of the rows: few images would move the weights, and BatchNorm's statistics, as much
    as a whole batch does.

    Args:
        length: rows of an epoch.
        batch_size: rows of a batch, all processes and micro-batches together.
        seed: of the order; `None` for the plain one, of a validation.
        processes, process: how many share each batch, and which of them this is.
        parts: micro-batches that a batch is served as, for gradients that are accumulated.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int | None,
        *,
        processes: int = 1,
        process: int = 0,
        parts: int = 1,
    ) -> None:
        self.length = self.used = length
        self.batch_size = batch_size
        self.seed = seed
        self.processes = processes
        self.process = process
        self.parts = parts
        self.epoch = 0
        if seed is not None:
            rest = length % batch_size
            self.used -= rest if 2 * rest < batch_size else rest % (processes * parts)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration belongs to."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(1 for _ in self._batches(np.arange(self.length)))

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.arange(self.length)
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        for rows in self._batches(order):
            yield [(row, self.epoch) for row in rows.tolist()]

    def _batches(self, order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for start in range(0, self.used, self.batch_size):
            batch = order[start : min(start + self.batch_size, self.used)]
            for rows in np.array_split(batch[self.process :: self.processes], self.parts):
                if len(rows):  # the last batch of a validation may be too small for every process
                    yield rows


def check_shares(length: int, batch_size: int, processes: int, parts: int) -> None:
    """Refuse training batches that cannot be divided equally: their shares would not weigh the same.

    Raises:
        BoneAgeError: naming the numbers of shares that work; or there are not enough rows for a batch.
    """
    shares = processes * parts
    if batch_size % shares:
        possible = ", ".join(str(n) for n in range(1, batch_size + 1) if batch_size % n == 0)
        raise BoneAgeError(
            f"data.batch_size={batch_size}: {processes} processes × {parts} accumulated parts cannot share "
            f"it equally.\nThese numbers of shares can: {possible}. Change trainer.devices, "
            "trainer.accumulate_grad_batches or data.batch_size."
        )
    if 2 * length < batch_size or length < shares:
        raise BoneAgeError(
            f"{length} training rows are fewer than half of data.batch_size={batch_size}; take a smaller one."
        )


class RadiographDataset(Dataset[Batch]):
    """Dataset of one side of a split, read a batch at a time.

    A sample's key is a function of (side, seed, epoch, row), whatever process reads it.

    Args:
        rows: `id, male, bone_age, group` of this side.
        read: ids → their pixels, uint8 [B, H, W], or what stands for them until the device, [B].
        train: whether this is the training side.
        seed: of the keys, and of the rows that are drawn.
        draws: how many rows of each group an epoch draws; `None` for every row once.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        read: Callable[[Sequence[str]], NDArray[Any]],
        *,
        train: bool,
        seed: int,
        draws: Mapping[int, int] | None = None,
    ) -> None:
        self.groups = rows["group"].to_numpy() if draws else None
        self.draws = draws or {}
        self.drawn: tuple[int, NDArray[np.int64]] = -1, np.arange(len(rows))
        self.ids = rows["id"].tolist()
        self.male = rows["male"].to_numpy(dtype=np.float32)
        self.bone_age = rows["bone_age"].to_numpy(dtype=np.float32)
        self.read = read
        self.stream = 1 if train else 2
        self.seed = seed

    def __len__(self) -> int:
        return sum(self.draws.values()) if self.draws else len(self.ids)

    def __getitem__(self, keys: list[Key]) -> Batch:
        rows = [int(self._epoch_rows(epoch)[row]) for row, epoch in keys]
        sample_keys = [_sample_keys(self.seed, epoch, self.stream, len(self))[row] for row, epoch in keys]
        pixels = self.read([self.ids[row] for row in rows])
        batch = Batch(
            image=torch.from_numpy(pixels).unsqueeze(1),  # [B, H, W] → [B, 1, H, W]
            key=torch.from_numpy(np.array(sample_keys)),
            male=torch.from_numpy(self.male[rows]),
            bone_age=torch.from_numpy(self.bone_age[rows]),
            row=torch.from_numpy(np.array(rows)),
        )
        return to_shared_memory(batch)

    def _epoch_rows(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows that an epoch consists of."""
        if self.groups is not None and self.drawn[0] != epoch:
            self.drawn = epoch, draw_rows(self.groups, self.draws, self.seed, epoch)
        return self.drawn[1]


@lru_cache(maxsize=4)
def _sample_keys(seed: int, epoch: int, stream: int, rows: int) -> NDArray[np.int64]:
    # The order's generator is seeded with [seed, epoch].
    return (np.random.default_rng([seed, epoch, stream]).random(rows) * 2**BITS).astype(np.int64)
