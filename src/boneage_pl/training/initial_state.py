"""Initial state of a run: from scratch, warm-started from `ckpt=`, or resumed."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from boneage_pl.cli.instantiate import instantiate
from boneage_pl.errors import BoneAgeError
from boneage_pl.model.optim import length_option
from boneage_pl.training.callbacks.checkpointing import warn_if_low_disk_space
from boneage_pl.training.callbacks.logging import EpochLogger
from boneage_pl.training.checkpoint import (
    TRAINING,
    Checkpoint,
    build_network,
    check_same_architecture,
    load_checkpoint,
)
from boneage_pl.training.history import EpochMetrics, MetricsHistory
from boneage_pl.training.metadata import CheckpointMetadata, WarmStart
from boneage_pl.training.preflight import find_warm_start
from boneage_pl.training.run_dir import diff_configs, to_plain
from boneage_pl.training.runs import BEST, LAST, PREVIOUS, SUMMARY
from boneage_pl.utils.files import atomic_path
from boneage_pl.utils.hardware import warn_if_numerics_differ

log = logging.getLogger(__name__)


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """Return the newest intact checkpoint of a run, or `None` if it has none yet.

    Raises:
        BoneAgeError: all checkpoints are damaged.
    """
    existing = [run / name for name in (LAST, PREVIOUS, BEST) if (run / name).exists()]
    for path in existing:
        try:
            return load_checkpoint(path)
        except BoneAgeError as error:
            log.warning("%s\nThe previous checkpoint is used; later epochs are trained again.", error)
    if existing:
        raise BoneAgeError(f"{run}: all checkpoints are damaged. Start a new run.")
    return None


def restore_best(run: Path, state: Checkpoint, history: MetricsHistory) -> None:
    """Restore `best.ckpt` to its state when `state` was saved.

    The run may have been killed between the two writes, or the file may be damaged: it is copied from another
    checkpoint of that epoch. Without one, `history` marks the epoch as lost and the next best epoch is used.
    """
    best, saved = history.best, _last_epoch(run / BEST)
    if best is None or saved == best["epoch"]:
        return
    available = {_last_epoch(path): path for path in (run / BEST, run / PREVIOUS, state.path)}
    while history.best is not None and history.best["epoch"] not in available:
        history.best["lost"] = True
    if history.best is not best:
        log.warning(
            "%s is damaged or missing: epoch %d (validation MAE %.4f months) is lost.\nThe best epoch is %s.",
            run / BEST,
            best["epoch"],
            best["val_mae"],
            history.best["epoch"] if history.best else "the next validated one",
        )
    if saved is None and (run / BEST).exists():  # keep the damaged file
        (run / BEST).replace((run / BEST).with_suffix(".damaged"))
    if history.best is not None and history.best["epoch"] != saved:
        with atomic_path(run / BEST) as beside:
            shutil.copyfile(available[history.best["epoch"]], beside)


def _last_epoch(path: Path) -> int | None:
    """Return the last epoch of a checkpoint; `None` if damaged or before the first epoch."""
    try:
        epochs = load_checkpoint(path).metadata.epochs
    except BoneAgeError:
        return None
    return epochs[-1]["epoch"] if epochs else None


def check_training_state(checkpoint: Checkpoint, optimizer: Optimizer) -> None:
    """Raise `BoneAgeError` unless Lightning can resume `optimizer` from a checkpoint."""
    try:
        for key, kind in TRAINING.items():
            if not isinstance(checkpoint.training[key], kind):
                raise TypeError(key)
        shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
        (state,) = checkpoint.training["optimizer_states"]
        for number, moments in state["state"].items():
            if any(m.dim() and m.shape != shapes[number] for m in moments.values() if isinstance(m, Tensor)):
                raise ValueError("shape")
        if not isinstance(checkpoint.training["loops"]["fit_loop"], dict):
            raise TypeError("fit_loop")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BoneAgeError(
            f"{checkpoint.path} has no valid training state to resume from.\n"
            "Start a new run from its weights with ckpt=."
        ) from error


@dataclass
class InitialState:
    """Initial state of a run.

    Args:
        checkpoint: source of the weights; `None` for the network's initial weights.
        resumed: whether it is the run's own checkpoint.
    """

    checkpoint: Checkpoint | None
    resumed: bool

    @classmethod
    def resolve(cls, cfg: DictConfig, run: Path) -> "InitialState":
        """Return the state to resume from in the run's folder, or else the warm start from `ckpt=`.

        Raises:
            BoneAgeError: unreadable checkpoint, or another network, optimizer or experiment.
        """
        if state := latest_checkpoint(run):
            _check_same_experiment(cfg, state)
            # never fewer epochs than configured before
            configured = state.metadata.config["trainer"]["max_epochs"]
            cfg.trainer.max_epochs = max(cfg.trainer.max_epochs, configured)
            if cfg.trainer.max_epochs > configured and (option := length_option(cfg.get("scheduler"))):
                raise BoneAgeError(
                    f"trainer.max_epochs={cfg.trainer.max_epochs}: the schedule ({option}) spans the whole "
                    f"run of {configured} epochs.\nStart a new run with the wanted number of epochs."
                )
            return cls(state, resumed=True)
        if ckpt := find_warm_start(cfg):
            start = load_checkpoint(ckpt)
            check_same_architecture(start, to_plain(cfg.model))
            if cfg.optimizer.get("state") == "checkpoint":
                _check_same_optimizer(start, cfg.optimizer.get("_target_"))
            return cls(start, resumed=False)
        return cls(None, resumed=False)

    def build_network(self, model: DictConfig) -> nn.Module:
        """Return the network with its initial weights."""
        return build_network(self.checkpoint, model) if self.checkpoint else instantiate(model, "model")

    @property
    def split(self) -> dict[str, Any] | None:
        """The checkpoint's split."""
        return self.checkpoint.metadata.split if self.checkpoint else None

    @property
    def resumed_metadata(self) -> CheckpointMetadata | None:
        """The metadata of a resumed run's checkpoint."""
        return self.checkpoint.metadata if self.checkpoint and self.resumed else None

    @property
    def epochs(self) -> list[EpochMetrics]:
        """The epochs of a resumed run."""
        return self.resumed_metadata.epochs if self.resumed_metadata else []

    @property
    def path(self) -> Path | None:
        """The checkpoint for Lightning to resume from."""
        return self.checkpoint.path if self.checkpoint and self.epochs else None

    def optimizer_state(self, option: str | None) -> dict[str, Any] | None:
        """Return the checkpoint's optimizer state if `optimizer.state` is `checkpoint`.

        For a run resumed after its first epoch, Lightning restores it.
        """
        if option is None or self.checkpoint is None or self.epochs:
            return None
        return self.checkpoint.training["optimizer_states"][0]  # type: ignore[no-any-return]

    def describe(self, cfg: DictConfig) -> str:
        """Describe the initial weights of a new run; empty for a network without an option `weights`."""
        if self.resumed or (self.checkpoint is None and "weights" not in cfg.model):
            return ""
        if self.checkpoint is None:
            names = {None: "random", "imagenet": "ImageNet's"}
            return f"initial weights: {names.get(cfg.model.weights, cfg.model.weights)}"
        state = ", with optimizer state" if cfg.optimizer.get("state") else ""
        return f"initial weights: {self.checkpoint.path}{state}"

    def check(self, optimizer: Optimizer) -> None:
        """Raise `BoneAgeError` unless the state fits the optimizer, then release the tensors."""
        if self.checkpoint and self.epochs:
            check_training_state(self.checkpoint, optimizer)
        if self.checkpoint:
            self.checkpoint.release()

    def record_baseline(self, val_mae: float) -> WarmStart:
        """Log and return the warm start with its MAE on this run's validation rows, in months."""
        assert self.checkpoint is not None
        log.info("validation MAE of %s before the first step: %.4f months", self.checkpoint.path, val_mae)
        return WarmStart(self.checkpoint.metadata.experiment, str(self.checkpoint.path), val_mae)

    def log_start(self, run: Path, max_epochs: int, numerics: dict[str, Any]) -> None:
        """Log that a run is resumed, and differences of the hardware."""
        if self.resumed_metadata:
            log.info("resuming %s after %d of %d epochs", run, len(self.epochs), max_epochs)
            warn_if_numerics_differ(self.resumed_metadata.numerics, numerics)


def _check_same_optimizer(start: Checkpoint, target: str) -> None:
    stored = start.metadata.config["optimizer"].get("_target_")
    if not start.training.get("optimizer_states"):
        raise BoneAgeError(f"optimizer.state=checkpoint: {start.path} has weights only, no optimizer state.")
    if stored != target:
        raise BoneAgeError(
            f"optimizer.state=checkpoint: {start.path} was trained with {stored}; this run uses {target}."
        )


def _check_same_experiment(cfg: DictConfig, state: Checkpoint) -> None:
    if changed := diff_configs(to_plain(cfg), state.metadata.config):
        raise BoneAgeError(
            f"{state.path} was trained with another {', '.join(changed[:5])}.\n"
            "Start a new run for another configuration."
        )


def write_run_files(
    run: Path,
    initial: InitialState,
    network: nn.Module,
    split: pd.DataFrame,
    skipped: pd.DataFrame,
    epochs: EpochLogger,
) -> None:
    """Write split.csv, skipped.csv and run.json; for a resumed run also metrics.csv and best.ckpt."""
    warn_if_low_disk_space(network, run)
    split.to_csv(run / "split.csv", index=False)
    if len(skipped):
        skipped.to_csv(run / "skipped.csv", index=False)
    epochs.record.write()
    if initial.checkpoint and initial.resumed:
        epochs.write()
        restore_best(run, initial.checkpoint, epochs.history)
        (run / SUMMARY).unlink(missing_ok=True)  # written again at the end
