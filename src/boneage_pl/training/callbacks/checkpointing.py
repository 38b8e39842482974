"""Save the best and last checkpoint, atomically."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from boneage_pl.errors import BoneAgeError
from boneage_pl.training.callbacks.logging import EpochLogger
from boneage_pl.training.history import MetricsHistory
from boneage_pl.training.runs import BEST, LAST, PREVIOUS
from boneage_pl.utils.files import atomic_path

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically.

    It writes directly to the file, four times as fast as Lightning, which writes through memory. A checkpoint
    that is both best and last is one file with a hard link. The one before the last is kept as
    `previous.ckpt`. A write error is logged and sets `failed`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failed = False
        self._latest: tuple[int, Path] | None = None  # step and path of the last written one

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` to `path`."""
        assert storage_options is None
        path = Path(path)
        step = checkpoint["global_step"]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path, flush=False) as beside:
                latest_step, latest = self._latest or (None, path)
                if latest_step != step or not _hardlink(latest, beside):
                    with beside.open("wb") as file:
                        torch.save(checkpoint, file)
                        file.flush()
                        os.fsync(file.fileno())  # before replacing files: a disk may fail only here
                if path.name == LAST.name and path.exists() and self._latest != (step, path):
                    path.replace(path.with_name(PREVIOUS.name))  # fallback for a killed run
        except (OSError, RuntimeError) as error:  # PyTorch's writer raises the second
            self.failed = True
            log.error(
                "%s could not be saved (%s). Earlier checkpoints are intact; "
                "saving is retried after the next epoch.",
                path,
                str(error).splitlines()[0],
            )
        else:
            self.failed = False
            self._latest = step, path


def _hardlink(path: Path, other: Path) -> bool:
    """Create a hard link `other` to `path`, if the file system supports it."""
    try:
        other.hardlink_to(path)
    except OSError:
        return False
    return True


class SaveBestAndLast(Checkpoint):
    """Saves `last.ckpt` before the first step and after every epoch, and `best.ckpt` by validation MAE.

    Lightning runs it after all other callbacks and hooks, so the saved state is that at the start of the next
    epoch, with a reduced learning rate and the epoch's row of metrics.csv.
    """

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Save the initial state."""
        if trainer.current_epoch == 0 and not _history(trainer).rows:
            self._save(trainer, LAST)

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Save the state after an epoch, also as the best if it is.

        Rank 0 decides, because NaN may compare differently on other ranks, which would then block.
        """
        history = _history(trainer)
        history.rows[-1].pop("lost", None)  # saving may succeed this time
        self._save(trainer, LAST)
        if trainer.strategy.broadcast(history.ends_with_best):
            self._save(trainer, BEST)
            if self._failed(trainer):
                history.rows[-1]["lost"] = True

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Retry a failed save.

        Raises:
            BoneAgeError: it fails again.
        """
        if not self._failed(trainer):
            return
        self.on_train_epoch_end(trainer)
        if self._failed(trainer):
            raise BoneAgeError("The final checkpoint could not be saved. Free some disk space.")

    def _failed(self, trainer: L.Trainer) -> bool:
        """Whether saving failed on rank 0, for all ranks."""
        return trainer.strategy.broadcast(_files(trainer).failed)

    def _save(self, trainer: L.Trainer, name: Path) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / name)


def _history(trainer: L.Trainer) -> MetricsHistory:
    return next(c for c in trainer.callbacks if isinstance(c, EpochLogger)).history  # type: ignore[attr-defined]


def _files(trainer: L.Trainer) -> AtomicCheckpointIO:
    files = trainer.strategy.checkpoint_io
    assert isinstance(files, AtomicCheckpointIO)
    return files


def checkpoint_bytes(network: nn.Module) -> int:
    """Return the maximum size of a run's checkpoints in bytes.

    Best, previous, last and the one being written, each with the weights and Adam's two moments.
    """
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    return 4 * 3 * weights


def warn_if_low_disk_space(network: nn.Module, run: Path) -> None:
    """Warn if the disk may be too small for the checkpoints."""
    needed, free = checkpoint_bytes(network), shutil.disk_usage(run).free
    if free < needed:
        log.warning(
            "low disk space: the checkpoints in %s may take %.1f GB, and %.1f GB are free.",
            run,
            needed / 1e9,
            free / 1e9,
        )
