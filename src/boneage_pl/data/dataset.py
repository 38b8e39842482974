"""Dataset of radiographs and batch sampler."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
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


class Batch(TypedDict):
    """A batch of images with sex, bone age and row in the subset."""

    # uint8 [B, 1, H, W], or int64 [B, 1] for `DeviceImages`; on the device float32 [B, C, H, W], normalized
    image: Tensor
    key: Tensor  # int64 [B], random bits by (subset, seed, epoch, row) for random transforms
    male: Tensor  # float32 [B], 1 or 0
    bone_age: Tensor  # float32 [B], months
    row: Tensor  # int64 [B]


def to_shared_memory(batch: Batch) -> Batch:
    """Move a batch into shared memory if in a worker.

    PyTorch would do so in a thread whose errors are lost, and the training would hang.

    Raises:
        BoneAgeError: shared memory is full.
    """
    if get_worker_info() is None:
        return batch
    try:
        for tensor in batch.values():
            tensor.share_memory_()  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise BoneAgeError(
            "Shared memory (/dev/shm) is too small for the batches of the loader workers.\n"
            "Use fewer with data.num_workers=1, or none with 0. Containers have 64 MiB by default;\n"
            "give more with --shm-size=1g."
        ) from error
    return batch


Key = tuple[int, int]  # row in the subset, epoch


class EpochBatchSampler(Sampler[list[Key]]):
    """Yields batches of keys, in an order by (seed, epoch), or in sequence.

    Every process of a distributed run draws the same batches and uses its share. Lightning calls `set_epoch`;
    the epoch is part of the key, since workers may persist over epochs. In training, the shares of a batch
    are equal: the remainder of the last batch is dropped, and the whole batch if it is less than half full,
    since it would affect weights and BatchNorm statistics as much as a full one.

    Args:
        length: rows per epoch.
        batch_size: rows per batch, for all processes and micro-batches together.
        seed: of the order; `None` for sequential order.
        processes, process: number of processes that share a batch, and the rank of this one.
        parts: micro-batches per batch, for gradient accumulation.
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
        """Set the epoch of the next iteration."""
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
                if len(rows):  # the last validation batch may be too small for all processes
                    yield rows


def check_shares(length: int, batch_size: int, processes: int, parts: int) -> None:
    """Reject training batches that cannot be divided equally.

    Raises:
        BoneAgeError: with the possible numbers of shares; or too few rows for a batch.
    """
    shares = processes * parts
    if batch_size % shares:
        possible = ", ".join(str(n) for n in range(1, batch_size + 1) if batch_size % n == 0)
        raise BoneAgeError(
            f"data.batch_size={batch_size}: not divisible by {processes} processes × {parts} "
            f"accumulated parts.\nPossible numbers of shares: {possible}. Change trainer.devices, "
            "trainer.accumulate_grad_batches or data.batch_size."
        )
    if 2 * length < batch_size or length < shares:
        raise BoneAgeError(f"{length} training rows are too few for data.batch_size={batch_size}: reduce it.")


class RadiographDataset(Dataset[Batch]):
    """Dataset of training or validation images, indexed by batches of keys.

    A sample's random key depends on (subset, seed, epoch, row), not on the process.

    Args:
        rows: `id, male, bone_age, group` of the subset.
        read: ids → pixels, uint8 [B, H, W], or row numbers for `DeviceImages`, [B].
        train: whether this is the training set.
        seed: of the keys and of drawn rows.
        draws: number of rows per group and epoch; `None` for every row once.
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
        """Return the rows of an epoch."""
        if self.groups is not None and self.drawn[0] != epoch:
            self.drawn = epoch, draw_rows(self.groups, self.draws, self.seed, epoch)
        return self.drawn[1]


@lru_cache(maxsize=4)
def _sample_keys(seed: int, epoch: int, stream: int, rows: int) -> NDArray[np.int64]:
    # differs from the sampler's seed, [seed, epoch]
    return (np.random.default_rng([seed, epoch, stream]).random(rows) * 2**BITS).astype(np.int64)
