"""Loggers of a run: one point per epoch, for each that is configured."""

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

# What stands in one chart of CUSTOM SCALARS. In TIME SERIES groups are in the order of their names, and the
# first are open: the errors' is the first, and those of images, result and training follow.
_LAYOUT = {
    "mean absolute error in months": {
        "training and validation": ["Multiline", ["mae/train$", "mae/val$"]],
        "validation of girls and of boys": ["Multiline", ["mae/val_girls", "mae/val_boys"]],
    }
}

_report = threading.excepthook


def build_loggers(nodes: DictConfig | None, run: Path, first_epoch: int | None) -> list[Logger]:
    """Build the configured loggers, each writing under a run's folder once it is opened.

    Args:
        nodes: by name, see conf/logger/.
        run: the folder.
        first_epoch: of those that will be logged, in a run that is resumed: TensorBoard drops points from it
            on, and Weights & Biases goes on with the run of that folder.

    Raises:
        BoneAgeError: one cannot be built, or its package is missing.
    """
    loggers: list[Logger] = []
    label = f"{run.absolute().parent.name}/{run.name}"
    for key, node in (nodes or {}).items():
        name = f"logger.{key!s}"
        target = str(node.get("_target_")).rpartition(".")[2]
        known: dict[str, Any] = {"save_dir": run}
        if target == "EpochTensorBoardLogger":
            known["first_epoch"] = first_epoch
        elif target == "WandbLogger":
            known |= {"name": label, "id": label.replace("/", "-"), "resume": "allow"}
        elif target == "MLFlowLogger":
            known["run_name"] = label
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # where no server is named
        given = {option: value for option, value in known.items() if option not in node}
        try:
            loggers.append(instantiate_partial(node, name)(**given))
        except BoneAgeError as error:
            if isinstance(error.__cause__, ModuleNotFoundError):
                raise BoneAgeError(f"{name}: {error.__cause__}\npip install 'boneage_pl[{key!s}]'") from error
            raise
    return loggers


def open_loggers(loggers: Iterable[Logger], config: Mapping[str, Any]) -> None:
    """Open loggers before the first step, and give those that keep it a run's configuration.

    Raises:
        BoneAgeError: one cannot be reached, or wants an account.
    """
    for logger in loggers:
        with translate_errors(f"logger ({type(logger).__name__})"):
            _ = logger.experiment  # type: ignore[attr-defined]
            if not isinstance(logger, EpochTensorBoardLogger):  # whose hyper-parameters come with the result
                logger.log_hyperparams(dict(config))


def log_epoch(loggers: Iterable[Logger], points: Mapping[str, float], epoch: int) -> None:
    """Log one epoch's points with every logger; what cannot be written is reported, and training goes on."""
    for logger in loggers:
        try:
            logger.log_metrics(dict(points), epoch)
            logger.save()
        except Exception as error:  # a server's may be anything; metrics.csv has the points
            log.error("%s: %s. Training goes on.", type(logger).__name__, first_line(error))


def tensorboard_of(loggers: Iterable[Logger]) -> "EpochTensorBoardLogger | None":
    """Return the one of TensorBoard among loggers, which images are shown in."""
    return next((logger for logger in loggers if isinstance(logger, EpochTensorBoardLogger)), None)


def _ignore_write_errors(failed: threading.ExceptHookArgs) -> None:
    """Hide the traceback of TensorBoard's writer thread: `EpochTensorBoardLogger` raises its error."""
    if type(failed.thread).__name__ != "_AsyncWriterThread":
        _report(failed)


class EpochTensorBoardLogger(TensorBoardLogger):
    """Writes points into a run's folder, after which TensorBoard calls the run; the step is the epoch.

    Runs of other batch or data sizes lie over each other so. What a full disk does not take is written after
    a later epoch, into a file of its own: TensorBoard's writer never recovers from an error.

    Args:
        save_dir: the run's folder.
        first_epoch: the first that is written; TensorBoard drops points of it and of later ones.
    """

    def __init__(self, save_dir: Path, first_epoch: int | None = None) -> None:
        super().__init__(save_dir, name=None, version="", default_hp_metric=False, purge_step=first_epoch)
        threading.excepthook = _ignore_write_errors
        self._waiting: list[tuple[int, Mapping[str, float]]] = []

    def save(self) -> None:
        """Flush; Lightning's own writes hparams.yaml too, whose values are in .hydra/ already."""
        self.experiment.flush()

    @rank_zero_only  # type: ignore[untyped-decorator]
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one epoch's points, after those of earlier epochs that failed."""
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
