"""Loggers of a run, with one point per epoch."""

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from boneage_pl.cli.instantiate import instantiate_partial, translate_errors
from boneage_pl.errors import BoneAgeError, first_line

log = logging.getLogger(__name__)

# Charts of CUSTOM SCALARS. In TIME SERIES, groups are in alphabetical order: images, mae, result, training.
_LAYOUT = {
    "mean absolute error in months": {
        "training and validation": ["Multiline", ["mae/train$", "mae/val$"]],
        "validation of girls and of boys": ["Multiline", ["mae/val_girls", "mae/val_boys"]],
    }
}

_default_excepthook = threading.excepthook


def build_loggers(nodes: DictConfig | None, run: Path, first_epoch: int | None) -> list[Logger]:
    """Build the configured loggers, which write into the run's folder once opened.

    Args:
        nodes: loggers by name, see conf/logger/.
        run: the run's folder.
        first_epoch: first epoch to be logged by a resumed run: TensorBoard drops points from there on;
            Weights & Biases continues its run.

    Raises:
        BoneAgeError: a logger cannot be built, or its package is missing.
    """
    loggers: list[Logger] = []
    label = f"{run.absolute().parent.name}/{run.name}"
    for key, node in (nodes or {}).items():
        name = f"logger.{key!s}"
        target = str(node.get("_target_")).rpartition(".")[2]
        defaults: dict[str, Any] = {"save_dir": run}
        if target == "EpochTensorBoardLogger":
            defaults["first_epoch"] = first_epoch
        elif target == "WandbLogger":
            defaults |= {"name": label, "id": label.replace("/", "-"), "resume": "allow"}
        elif target == "MLFlowLogger":
            defaults["run_name"] = label
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # without a server
        arguments = {option: value for option, value in defaults.items() if option not in node}
        try:
            loggers.append(instantiate_partial(node, name)(**arguments))
        except BoneAgeError as error:
            if isinstance(error.__cause__, ModuleNotFoundError):
                raise BoneAgeError(f"{name}: {error.__cause__}\npip install 'boneage_pl[{key!s}]'") from error
            raise
    return loggers


def open_loggers(loggers: Iterable[Logger], config: Mapping[str, Any]) -> None:
    """Open the loggers before the first step and log the configuration.

    Raises:
        BoneAgeError: a server is unreachable or needs an account.
    """
    for logger in loggers:
        with translate_errors(f"logger ({type(logger).__name__})"):
            _ = logger.experiment  # type: ignore[attr-defined]
            if not isinstance(logger, EpochTensorBoardLogger):  # logs hyperparameters with the result
                logger.log_hyperparams(dict(config))


def log_epoch(loggers: Iterable[Logger], points: Mapping[str, float], epoch: int) -> None:
    """Log the points of an epoch with every logger; errors are logged and do not stop the training."""
    for logger in loggers:
        try:
            logger.log_metrics(dict(points), epoch)
            logger.save()
        except Exception as error:  # of any type; metrics.csv has the points
            log.error("%s: %s. Training continues.", type(logger).__name__, first_line(error))


def tensorboard_of(loggers: Iterable[Logger]) -> "EpochTensorBoardLogger | None":
    """Return the TensorBoard logger, if any."""
    return next((logger for logger in loggers if isinstance(logger, EpochTensorBoardLogger)), None)


def _ignore_write_errors(failed: threading.ExceptHookArgs) -> None:
    """Hide the traceback of TensorBoard's writer thread, whose error `EpochTensorBoardLogger` raises."""
    if type(failed.thread).__name__ != "_AsyncWriterThread":
        _default_excepthook(failed)


class EpochTensorBoardLogger(TensorBoardLogger):
    """TensorBoard logger with the epoch as step, so that runs of any batch or data size are comparable.

    Points that a full disk rejects are written after a later epoch into a new file, since TensorBoard's
    writer never recovers from an error.

    Args:
        save_dir: the run's folder.
        first_epoch: TensorBoard drops earlier points from this epoch on.
    """

    def __init__(self, save_dir: Path, first_epoch: int | None = None) -> None:
        super().__init__(save_dir, name=None, version="", default_hp_metric=False, purge_step=first_epoch)
        threading.excepthook = _ignore_write_errors
        self._waiting: list[tuple[int, Mapping[str, float]]] = []

    def save(self) -> None:
        """Flush, without Lightning's hparams.yaml, whose values are in .hydra/."""
        self.experiment.flush()

    @rank_zero_only  # type: ignore[untyped-decorator]
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the points of an epoch, after those of earlier epochs that failed."""
        self._waiting.append((step or 0, metrics))
        try:
            for at, values in self._waiting:
                if at == 0:
                    self.experiment.add_custom_scalars(_LAYOUT)
                for tag, value in values.items():
                    self.experiment.add_scalar(tag, value, at)
            self.experiment.flush()
        except OSError:
            self._kwargs["purge_step"] = self._waiting[0][0]
            self._experiment = None
            raise
        self._waiting.clear()
