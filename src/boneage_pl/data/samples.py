"""One side of a split as PyTorch samples, and the order they come in."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset, Sampler

from boneage_pl.batch import Batch
from boneage_pl.data.images import published_transform, read_image


class EpochOrder(Sampler[tuple[int, int]]):
    """Yields (position, epoch): a permutation that depends on (seed, epoch) alone, or the plain order.

    Lightning calls `set_epoch`. The epoch travels with the position, so that a worker process that outlives
    the epoch still knows which one it is in.
    """

    def __init__(self, length: int, seed: int | None) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration belongs to."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.seed is None:
            order = np.arange(self.length)
        else:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return ((int(position), self.epoch) for position in order)


class Radiographs(Dataset[Batch]):
    """The rows of one side of a split, read and transformed one by one.

    The flip of a sample depends on (seed, epoch, position) alone, whatever process reads it.
    """

    def __init__(
        self, rows: pd.DataFrame, paths: pd.Series, image_size: int, *, train: bool, seed: int
    ) -> None:
        self.paths = paths.tolist()
        self.male = rows["male"].to_numpy(dtype=np.float32)
        self.bone_age = rows["bone_age"].to_numpy(dtype=np.float32)
        self.transform = published_transform(image_size, train=train)
        self.train = train
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        position, epoch = key
        image = read_image(self.paths[position])
        with torch.random.fork_rng(devices=[], enabled=self.train):
            if self.train:  # torchvision's random transforms draw from PyTorch's global generator
                entropy = [self.seed, epoch, position]
                torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
            tensor = self.transform(image)
        return Batch(
            image=tensor,
            male=torch.tensor(self.male[position]),
            bone_age=torch.tensor(self.bone_age[position]),
            row=torch.tensor(position),
        )
