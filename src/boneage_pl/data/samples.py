"""One side of a split as PyTorch batches, and the order they come in."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from boneage_pl.data.batch import Batch
from boneage_pl.data.frame import Pixels
from boneage_pl.data.shared_memory import shared
from boneage_pl.data.transforms import BITS
from boneage_pl.errors import BoneageError

Key = tuple[int, int]  # a row of one side of a split, and the epoch that it is read in


class EpochBatches(Sampler[list[Key]]):
    """Yields batches of keys: in an order that depends on (seed, epoch) alone, or in the plain one.

    Every process of a distributed run draws the same batches and keeps its share of each, so an epoch has the
    same batches whatever their number. Lightning calls `set_epoch`; the epoch travels with the row, so that a
    worker that outlives the epoch still knows which one it is in.

    Args:
        length: rows.
        batch_size: rows of a batch, all processes and parts together.
        seed: of the order; `None` for the plain one.
        processes, process: how many share each batch, and which of them this is.
        parts: how many smaller batches a batch is served as, for gradients that are accumulated.
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
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.processes = processes
        self.process = process
        self.parts = parts
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration belongs to."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[list[Key]]:
        if self.seed is None:
            order = np.arange(self.length)
        else:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        for start in range(0, self.length, self.batch_size):
            share = order[start : start + self.batch_size][self.process :: self.processes]
            for part in np.array_split(share, self.parts):
                if len(part):  # the last batch of a validation may be too small for every process
                    yield [(int(row), self.epoch) for row in part]


def check_shares(length: int, batch_size: int, processes: int, parts: int) -> None:
    """Refuse training batches that cannot be divided equally: their parts would not weigh the same.

    Raises:
        BoneageError: naming the batch that cannot be, and what can.
    """
    shares = processes * parts
    rest = length % batch_size
    for size, which in ((batch_size, "data.batch_size"), (rest, "the last batch of an epoch")):
        if size % shares:
            raise BoneageError(
                f"{which} has {size} samples, and {processes} processes × {parts} accumulated parts cannot "
                f"share them equally.\nOf {length} training samples in batches of {batch_size}, these "
                f"numbers of shares work: {_shares(length, batch_size)}. Change trainer.devices, "
                "trainer.accumulate_grad_batches or data.batch_size."
            )


def _shares(length: int, batch_size: int) -> str:
    common = np.gcd(batch_size, length % batch_size)
    return ", ".join(str(n) for n in range(1, int(common) + 1) if common % n == 0)


class Radiographs(Dataset[Batch]):
    """Dataset of one side of a split, read a batch at a time.

    A sample's key is a function of (side, seed, epoch, row), whatever process reads it. Above its random bits
    is one that alternates from epoch to epoch, with a random start.

    Args:
        rows: `id, male, bone_age` of this side.
        read: ids → their pixels, uint8 [B, H, W].
        train: whether this is the training side.
        seed: of the keys.
    """

    def __init__(
        self, rows: pd.DataFrame, read: Callable[[Sequence[str]], Pixels], *, train: bool, seed: int
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
            key=torch.tensor([self._key(row, epoch) for row, epoch in keys]),
            male=torch.from_numpy(self.male[rows]),
            bone_age=torch.from_numpy(self.bone_age[rows]),
            row=torch.tensor(rows),
        )
        return shared(batch)

    def _key(self, row: int, epoch: int) -> int:
        first, now = (int(_keys(self.seed, e, self.stream, len(self))[row]) for e in (0, epoch))
        return now | ((first >> (BITS - 1)) + epoch) % 2 << BITS


@lru_cache(maxsize=4)
def _keys(seed: int, epoch: int, stream: int, rows: int) -> NDArray[np.int64]:
    # The order's generator is seeded with [seed, epoch].
    return (np.random.default_rng([seed, epoch, stream]).random(rows) * 2**BITS).astype(np.int64)
