"""Callbacks that log epochs, metadata and sample images, and that seed each epoch."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

from boneage_pl.errors import BoneAgeError
from boneage_pl.model.input_spec import denormalize, get_input_spec
from boneage_pl.model.lightning_module import BoneAgeModule
from boneage_pl.model.optim import base_lr
from boneage_pl.training.history import MetricsHistory
from boneage_pl.training.loggers import log_epoch, tensorboard_of
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.provenance import RunLog
from boneage_pl.utils.files import atomic_write
from boneage_pl.utils.plots import image_grid

log = logging.getLogger(__name__)

# name in TensorBoard → validation metric
VALIDATION = {"val": "val_mae", "val_girls": "val_mae_girls", "val_boys": "val_mae_boys"}
# Range of the predictions, in months, below which a network has collapsed; our choice.
CONSTANT_MONTHS = 0.1
COLUMNS, SHOWN_EPOCHS = 8, 6  # of the grid of training images


class EpochLogger(Callback):
    """Logs each epoch: a row of metrics.csv, a line on the console, points for the loggers."""

    def __init__(self, metrics_csv: Path, history: MetricsHistory, record: RunLog) -> None:
        self.metrics_csv = metrics_csv
        self.history = history
        self.record = record
        self.collapsed = False  # whether the warning has been logged

    def on_train_start(self, *_: Any) -> None:
        """Log the header of the epochs' lines."""
        log.info("%5s  %9s  %9s    %9s  %8s", "epoch", "train MAE", "val MAE", "lr", "images/s")

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the clock and store the epoch's learning rate."""
        self.lr = base_lr(trainer.optimizers[0])
        self.images = 0
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images and stop the clock, so that images/s excludes validation."""
        self.images += len(batch["row"]) * trainer.world_size
        if trainer.is_last_batch and module.device.type == "cuda":
            torch.cuda.synchronize()  # steps are queued asynchronously
        self.stopped = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log the epoch."""
        assert isinstance(module, BoneAgeModule)
        value = {name: float(metric) for name, metric in trainer.callback_metrics.items()}
        epoch, validated = trainer.current_epoch, module.validation_outputs
        val_mae = value["val_mae"] if validated else None
        self.history.rows.append(
            {"epoch": epoch, "train_mae": value["train_mae"], "val_mae": val_mae, "lr": self.lr}
        )
        if not trainer.is_global_zero:
            return
        self.write()

        rate = self.images / (self.stopped - self.started)
        measured = f"{val_mae:9.3f} {'*' if self.history.ends_with_best else ' '}" if validated else " " * 11
        log.info("%5d  %9.3f  %s  %9.2e  %8.1f", epoch, value["train_mae"], measured, self.lr, rate)
        points: dict[str, Any] = {
            "mae/train": value["train_mae"],
            "training/lr": self.lr,
            "training/images_per_second": rate,
        }
        if validated:
            self._warn_if_constant_predictions(epoch, float(np.ptp(module.validation["predicted"])))
            points |= {f"mae/{name}": value[key] for name, key in VALIDATION.items()}
        with log_write_errors(self.record.path):
            self.record.epoch(epoch, time.perf_counter() - self.started, rate)
        log_epoch(trainer.loggers, points, epoch)  # before this epoch's checkpoint

    def _warn_if_constant_predictions(self, epoch: int, spread: float) -> None:
        """Warn once if the predictions are nearly constant."""
        if spread < CONSTANT_MONTHS and not self.collapsed:
            self.collapsed = True
            log.warning(
                "epoch %d: predictions are nearly constant over the validation images (range %.2f months).\n"
                "If this persists, try a lower optimizer.lr, scheduler=cosine (with warm-up) or\n"
                "trainer.gradient_clip_val=1.",
                epoch,
                spread,
            )

    def write(self) -> None:
        """Write metrics.csv."""
        with log_write_errors(self.metrics_csv):
            atomic_write(self.metrics_csv, self.history.to_csv())


def check_monitors(callbacks: list[Callback]) -> None:
    """Raise `BoneAgeError` for a callback that monitors an unknown metric."""
    metrics = ["train_mae", *VALIDATION.values()]
    if not all(type(c).__module__.startswith(("lightning.", "boneage_pl.")) for c in callbacks):
        return  # a user's callback may log further metrics
    for callback in callbacks:
        metric = getattr(callback, "monitor", None)
        if metric is not None and metric not in metrics:
            name = type(callback).__name__
            raise BoneAgeError(f"callbacks: {name} monitors {metric}; choose from {', '.join(metrics)}.")


@contextmanager
def log_write_errors(what: Path | str) -> Iterator[None]:
    """Log a write error and continue: a full disk does not stop the training."""
    try:
        yield
    except OSError as error:
        log.error("%s could not be written: %s. Training continues.", what, error.strerror or error)


class SaveMetadata(Callback):
    """Adds the metadata to every checkpoint, as plain values.

    Args:
        record: the run's metadata, without the epoch's.
        validation_rows: `id, male, bone_age` of the validation rows.
        history: the epochs so far.
    """

    def __init__(
        self, record: CheckpointMetadata, validation_rows: pd.DataFrame, history: MetricsHistory
    ) -> None:
        self.record = record
        self.history = history
        self.rows = validation_rows

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the metadata with the predictions of the latest validation."""
        assert isinstance(module, BoneAgeModule)
        predictions = dict(module.validation)
        rows: Any = self.rows.iloc[predictions.pop("row")].to_dict("list")
        epochs = list(self.history.rows)
        record = replace(
            self.record, epoch=trainer.current_epoch, epochs=epochs, validation={**rows, **predictions}
        )
        checkpoint["boneage_pl"] = record.to_dict()


class SeedEachEpoch(Callback):
    """Seeds every epoch separately, so that a resumed run has the same random numbers (dropout)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed before the first step, after the random numbers that Lightning draws."""
        if batch_idx == 0:
            seeds = np.random.SeedSequence([self.seed, trainer.current_epoch, trainer.global_rank])
            torch.manual_seed(int(seeds.generate_state(1)[0]))


class SampleGrid(Callback):
    """Logs augmented training images to TensorBoard before the first step."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Log eight evenly spaced training samples, with the augmentations of six epochs."""
        tensorboard = tensorboard_of(trainer.loggers)
        if tensorboard is None or not trainer.is_global_zero or trainer.current_epoch > 0:
            return
        dataset = trainer.train_dataloader.dataset  # type: ignore[union-attr]
        picks = torch.linspace(0, len(dataset) - 1, COLUMNS).long().tolist()
        assert isinstance(module, BoneAgeModule)
        keys = [(row, epoch) for epoch in range(SHOWN_EPOCHS) for row in picks]
        batch = trainer.strategy.batch_to_device(dataset[keys], module.device)
        gray = denormalize(batch["image"], get_input_spec(module.network)).cpu()
        titles = [
            f"epoch {epoch}" if epoch else f"{'boy' if boy > 0.5 else 'girl'}, {float(months):.0f} months"
            for (_, epoch), boy, months in zip(keys, batch["male"], batch["bone_age"], strict=True)
        ]
        figure = image_grid(gray.numpy(), titles, COLUMNS)
        tensorboard.experiment.add_figure("images/training", figure, 0)
