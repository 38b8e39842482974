"""How the rows of a split are served: by how many processes, in which batches and order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import lightning as L
import pandas as pd
from torch.utils.data import DataLoader

from boneage_pl.data.batch import Batch
from boneage_pl.data.frame import Pixels
from boneage_pl.data.samples import EpochBatches, Radiographs
from boneage_pl.data.shared_memory import PREFETCH, with_room
from boneage_pl.machine.hardware import default_workers, on_gpu
from boneage_pl.machine.pool import leave_signals

Read = Callable[[Sequence[str]], Pixels]


@dataclass
class Loaders:
    """Makes the loaders of both sides of a split; the options are those of `BoneAgeData`.

    Args:
        side: of the images in pixels.
        prepared: whether they are read from a store, or decoded.
    """

    batch_size: int
    seed: int
    side: int
    prepared: bool
    workers: int | None
    prefetch_factor: int | None
    pin_memory: bool | None
    persistent_workers: bool
    _with_room: int | None = field(default=None, init=False)

    def steps(self, rows: pd.DataFrame, parts: int, limit: float | None) -> int:
        """Return the optimiser's steps of an epoch.

        Args:
            rows: that are trained on.
            parts: that each batch is served as.
            limit: batches of an epoch as served, or a share of them; `None` for all.
        """
        served = len(EpochBatches(len(rows), self.batch_size, None, parts=parts))
        if limit is not None:
            served = int(served * limit) if isinstance(limit, float) else min(served, limit)
        return -(-served // parts)

    def loader(
        self, rows: pd.DataFrame, read: Read, trainer: L.Trainer | None, *, train: bool
    ) -> DataLoader[Batch]:
        """Return a loader of rows: to train, in an order of their own each epoch; else as they are."""
        gpu = on_gpu(trainer.strategy.root_device.type if trainer else "auto")
        workers = self._workers(trainer, gpu)
        batches = EpochBatches(
            len(rows),
            self.batch_size,
            self.seed if train else None,
            processes=trainer.world_size if trainer else 1,
            process=trainer.global_rank if trainer else 0,
            parts=trainer.accumulate_grad_batches if trainer and train else 1,
        )
        if trainer:
            # Loader processes start before Lightning sets the epoch that a resumed run is in.
            progress = trainer.fit_loop.epoch_progress.current
            batches.set_epoch(progress.processed)  # type: ignore[attr-defined]
        return DataLoader(
            Radiographs(rows, read, train=train, seed=self.seed),
            batch_size=None,  # the sampler's keys are batches already
            sampler=batches,
            num_workers=workers,
            persistent_workers=self.persistent_workers and workers > 0,
            prefetch_factor=self._prefetch if workers else None,
            pin_memory=gpu if self.pin_memory is None else self.pin_memory,
            worker_init_fn=leave_signals if workers else None,
        )

    @property
    def _prefetch(self) -> int:
        return self.prefetch_factor or PREFETCH

    def _workers(self, trainer: L.Trainer | None, gpu: bool) -> int:
        """Return how many loader processes each side has: those asked for, as far as they have room."""
        if self._with_room is None:
            here, everywhere = (trainer.num_devices, trainer.world_size) if trainer else (1, 1)
            asked = self.workers
            if asked is None:
                asked = default_workers(prepared=self.prepared, gpu=gpu, processes=here)
            batch = -(-self.batch_size // everywhere) * self.side**2  # bytes
            self._with_room = with_room(asked, self._prefetch, batch, here)
        return self._with_room
