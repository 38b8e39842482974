"""Build data loaders and choose their worker count."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import lightning as L
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from boneage_pl.data.dataset import Batch, EpochBatchSampler, RadiographDataset
from boneage_pl.data.images.resize import ReadPixels
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.hardware import default_workers, free_memory, on_gpu
from boneage_pl.utils.processes import ignore_signals

log = logging.getLogger(__name__)

_MAX_MEMORY_FRACTION = 0.25  # of a GPU's free memory for images by default; our choice
_ROWS_AT_ONCE = 256  # images copied to the device at once


class DeviceImages:
    """The images of a split in the training device's memory; batches contain only row numbers.

    Args:
        ids: of the images.
        read: ids → pixels, uint8 [B, H, W].
        side: of the images in pixels.
        device: the training device.
    """

    def __init__(self, ids: Sequence[str], read: ReadPixels, side: int, device: torch.device) -> None:
        self.rows = {i: row for row, i in enumerate(ids)}
        self.pixels = torch.empty(len(ids), side, side, dtype=torch.uint8, device=device)
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            self.pixels[start : start + _ROWS_AT_ONCE] = torch.from_numpy(
                read(ids[start : start + _ROWS_AT_ONCE])
            )
        log.info("%d images on %s, %.1f GB", len(ids), device, self.pixels.nbytes / 1e9)

    def lookup(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of `ids`: int64 [B]."""
        return np.array([self.rows[i] for i in ids], dtype=np.int64)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the images of rows on the device: int64 [B, 1] → uint8 [B, 1, H, W]."""
        return self.pixels[rows]


@dataclass
class DataLoaderFactory:
    """Creates the loaders of training and validation; for the options see `BoneAgeDataModule`.

    Args:
        image_size: side of the images in pixels.
        cached: whether images are read from the cache.
    """

    batch_size: int
    seed: int
    image_size: int
    cached: bool
    num_workers: int | None
    prefetch_factor: int | None
    pin_memory: bool | None
    persistent_workers: bool
    on_device: bool | None

    def steps(self, length: int, parts: int, limit: float | None, processes: int) -> int:
        """Return the number of optimizer steps per epoch.

        Args:
            length: rows per epoch.
            parts: micro-batches per batch.
            limit: limit of micro-batches per epoch, or a fraction; `None` for all.
            processes: number of processes that share a batch.
        """
        served = len(EpochBatchSampler(length, self.batch_size, self.seed, processes=processes, parts=parts))
        if limit is not None:
            served = int(served * limit) if isinstance(limit, float) else min(served, limit)
        return -(-served // parts)

    def device_images(
        self, ids: Sequence[str], read: ReadPixels, trainer: L.Trainer | None
    ) -> DeviceImages | None:
        """Return the images on the training device if configured.

        Raises:
            BoneAgeError: `data.on_device=true`, but the GPU has too little memory.
        """
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        needed = len(ids) * self.image_size**2
        wanted = device.type == "cuda" if self.on_device is None else self.on_device
        if wanted and device.type == "cuda":
            free = free_memory(device)
            if self.on_device and needed > free:
                raise BoneAgeError(
                    f"data.on_device=true: the images need {needed / 1e9:.1f} GB; {device} has "
                    f"{free / 1e9:.1f} GB free."
                )
            wanted = bool(self.on_device) or needed <= _MAX_MEMORY_FRACTION * free
        return DeviceImages(ids, read, self.image_size, device) if wanted else None

    def loader(
        self,
        rows: pd.DataFrame,
        read: ReadPixels,
        images: DeviceImages | None,
        trainer: L.Trainer | None,
        *,
        train: bool,
        draws: Mapping[int, int] | None = None,
    ) -> DataLoader[Batch]:
        """Return a loader, in random order for training.

        With `images` on the device it serves row numbers and needs no workers. For `draws` see
        `RadiographDataset`.
        """
        gpu = on_gpu(trainer.strategy.root_device.type if trainer else "auto")
        workers = 0 if images else self._workers(trainer, gpu)
        source = images.lookup if images else read
        dataset = RadiographDataset(rows, source, train=train, seed=self.seed, draws=draws)
        batches = EpochBatchSampler(
            len(dataset),
            self.batch_size,
            self.seed if train else None,
            processes=trainer.world_size if trainer else 1,
            process=trainer.global_rank if trainer else 0,
            parts=trainer.accumulate_grad_batches if trainer and train else 1,
        )
        if trainer:
            # workers start before Lightning sets the epoch of a resumed run
            progress = trainer.fit_loop.epoch_progress.current
            batches.set_epoch(progress.processed)  # type: ignore[attr-defined]
        return DataLoader(
            dataset,
            batch_size=None,  # the sampler yields batches
            sampler=batches,
            num_workers=workers,
            persistent_workers=self.persistent_workers and workers > 0,
            prefetch_factor=self.prefetch_factor if workers else None,
            pin_memory=gpu and not images if self.pin_memory is None else self.pin_memory,
            worker_init_fn=ignore_signals if workers else None,
        )

    def _workers(self, trainer: L.Trainer | None, gpu: bool) -> int:
        if self.num_workers is not None:
            return self.num_workers
        return default_workers(prepared=self.cached, gpu=gpu, processes=trainer.num_devices if trainer else 1)
