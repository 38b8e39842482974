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
    """Writes checkpoints so that a file under its final name is whole.

    It writes straight into the file, which is four times as fast as through memory, as Lightning does. A
    checkpoint that is both best and last is one file with a hard link. The last but one is kept as
    `previous.ckpt`. A write error is logged, and sets `failed`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failed = False
        self._latest: tuple[int, Path] | None = None  # step and file of the last one written

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
                        os.fsync(file.fileno())  # before the last one is moved: a disk may fail only here
                if path.name == LAST.name and path.exists() and self._latest != (step, path):
                    path.replace(path.with_name(PREVIOUS.name))  # a killed run resumes from it
        except (OSError, RuntimeError) as error:  # PyTorch's writer turns what the disk says into the second
            self.failed = True
            log.error(
                "%s could not be saved (%s); what was saved before is whole. "
                "Training goes on and tries again after the next epoch.",
                path,
                str(error).splitlines()[0],
            )
        else:
            self.failed = False
            self._latest = step, path


def _hardlink(path: Path, other: Path) -> bool:
    """Let `other` name the file at `path` too, if the file system has links."""
    try:
        other.hardlink_to(path)
    except OSError:
        return False
    return True


class SaveBestAndLast(Checkpoint):
    """Saves `last.ckpt` before the first step and after every epoch, and `best.ckpt` by validation MAE.

    Lightning runs it after all other callbacks and the module's hooks, so that what is saved is the state
    that the next epoch starts from: a lowered learning rate and the epoch's row of metrics.csv are in it.
    """

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Save the weights that the first epoch starts from."""
        if trainer.current_epoch == 0 and not _history(trainer).rows:
            self._save(trainer, LAST)

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Save the epoch's end, and keep it as the best if no earlier epoch was as good.

        The first process decides: where errors are not numbers another might decide otherwise, and wait.
        """
        history = _history(trainer)
        history.rows[-1].pop("lost", None)  # at the end of the training it is tried once more
        self._save(trainer, LAST)
        if trainer.strategy.broadcast(history.ends_with_best):
            self._save(trainer, BEST)
            if self._failed(trainer):
                history.rows[-1]["lost"] = True

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Try once more what could not be saved.

        Raises:
            BoneAgeError: it still cannot.
        """
        if not self._failed(trainer):
            return
        self.on_train_epoch_end(trainer)
        if self._failed(trainer):
            raise BoneAgeError("The end of the training could not be saved: make room on the disk.")

    def _failed(self, trainer: L.Trainer) -> bool:
        """Whether the first process, which alone writes, could not: all of them act on it together."""
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
    """Return the bytes that a run's checkpoints take at most.

    Best, previous, last and the one being written, each with the weights and Adam's two moments of them.
    """
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    return 4 * 3 * weights


def warn_if_low_disk_space(network: nn.Module, run: Path) -> None:
    """Warn before the training if the disk may be too small for the checkpoints."""
    needed, free = checkpoint_bytes(network), shutil.disk_usage(run).free
    if free < needed:
        log.warning(
            "little room: the checkpoints in %s may take %.1f GB, and %.1f GB are free.",
            run,
            needed / 1e9,
            free / 1e9,
        )
