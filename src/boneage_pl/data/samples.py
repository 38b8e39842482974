"""One side of a split as PyTorch batches, and the order they come in."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from boneage_pl.data.batch import Batch
from boneage_pl.data.shared_memory import to_shared_memory
from boneage_pl.data.transforms import BITS
from boneage_pl.errors import BoneAgeError

Key = tuple[int, int]  # a row of one side of a split, and the epoch that it is read in


class EpochBatchSampler(Sampler[list[Key]]):
    """Yields batches of keys: in an order that depends on (seed, epoch) alone, or in the plain one.

    Every process of a distributed run draws the same batches and keeps its share of each. Lightning calls
    `set_epoch`; the epoch travels with the row, so that a worker that outlives the epoch still knows which
    one it is in. In training all shares of a batch are equal: what is left of the last one is dropped.

    Args:
        length: rows.
        batch_size: rows of a batch, all processes and micro-batches together.
        seed: of the order; `None` for the plain one, of a validation.
        processes, process: how many share each batch, and which of them this is.
        parts: micro-batches that a batch is served as, for gradients that are accumulated.
        drop_last: whether training drops the short last batch of an epoch.
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
        drop_last: bool = False,
    ) -> None:
        self.length = self.used = length
        self.batch_size = batch_size
        self.seed = seed
        self.processes = processes
        self.process = process
        self.parts = parts
        self.epoch = 0
        if seed is not None:
            self.used -= length % batch_size % (batch_size if drop_last else processes * parts)

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


def check_shares(
    length: int, batch_size: int, processes: int, parts: int, *, drop_last: bool = False
) -> None:
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
    if length < (batch_size if drop_last else shares):
        raise BoneAgeError(
            f"{length} training rows are fewer than data.batch_size={batch_size}: choose a smaller one."
        )


class RadiographDataset(Dataset[Batch]):
    """Dataset of one side of a split, read a batch at a time.

    A sample's key is a function of (side, seed, epoch, row), whatever process reads it. Above its random bits
    is one that alternates from epoch to epoch, with a random start.

    Args:
        rows: `id, male, bone_age` of this side.
        read: ids → their pixels, uint8 [B, H, W], or what stands for them until the device, [B].
        train: whether this is the training side.
        seed: of the keys.
    """

    def __init__(
        self, rows: pd.DataFrame, read: Callable[[Sequence[str]], NDArray[Any]], *, train: bool, seed: int
    ) -> None:
        self.ids = rows["id"].tolist()
        self.male = rows["male"].to_numpy(dtype=np.float32)
        self.bone_age = rows["bone_age"].to_numpy(dtype=np.float32)
        self.read = read
        self.stream = 1 if train else 2
        self.seed = seed

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, keys: list[Key]) -> Batch:
        rows = [row for row, _ in keys]
        pixels = self.read([self.ids[row] for row in rows])
        batch = Batch(
            image=torch.from_numpy(pixels).unsqueeze(1),  # [B, H, W] → [B, 1, H, W]
            key=torch.from_numpy(np.array([self._sample_key(row, epoch) for row, epoch in keys])),
            male=torch.from_numpy(self.male[rows]),
            bone_age=torch.from_numpy(self.bone_age[rows]),
            row=torch.from_numpy(np.array(rows)),
        )
        return to_shared_memory(batch)

    def _sample_key(self, row: int, epoch: int) -> int:
        first, now = (int(_sample_keys(self.seed, e, self.stream, len(self))[row]) for e in (0, epoch))
        return now | ((first >> (BITS - 1)) + epoch) % 2 << BITS


@lru_cache(maxsize=4)
def _sample_keys(seed: int, epoch: int, stream: int, rows: int) -> NDArray[np.int64]:
    # The order's generator is seeded with [seed, epoch].
    return (np.random.default_rng([seed, epoch, stream]).random(rows) * 2**BITS).astype(np.int64)
