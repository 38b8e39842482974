"""TensorBoard logger with one point per epoch."""

import logging
import threading
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

log = logging.getLogger(__name__)

# What stands in one chart of CUSTOM SCALARS. In TIME SERIES groups are in the order of their names, and the
# first are open: the errors' is the first, and those of pictures, result and training follow.
_LAYOUT = {
    "mean absolute error in months": {
        "training and validation": ["Multiline", ["mae/train$", "mae/val$"]],
        "validation of girls and of boys": ["Multiline", ["mae/val_girls", "mae/val_boys"]],
    }
}

_report = threading.excepthook


def _ignore_write_errors(failed: threading.ExceptHookArgs) -> None:
    """Hide the traceback of TensorBoard's writer thread: `EpochTensorBoardLogger.write` raises its error."""
    if type(failed.thread).__name__ != "_AsyncWriterThread":
        _report(failed)


class EpochTensorBoardLogger(TensorBoardLogger):
    """Writes points into a run's folder, after which TensorBoard calls the run; the step is the epoch.

    Runs of other batch or data sizes lie over each other so. What a full disk does not take is written after
    a later epoch, into a file of its own: TensorBoard's writer never recovers from an error.

    Args:
        run: the run's folder.
        first: the first epoch that is written; TensorBoard drops points of it and of later ones.
    """

    def __init__(self, run: Path, first: int | None = None) -> None:
        super().__init__(run, name=None, version="", default_hp_metric=False, purge_step=first)
        threading.excepthook = _ignore_write_errors
        self._waiting: list[tuple[int, dict[str, float]]] = []

    def save(self) -> None:
        """Flush; Lightning's own writes hparams.yaml too, whose values are in .hydra/ already."""
        self.experiment.flush()

    def write(self, points: dict[str, float], step: int) -> None:
        """Write one epoch's points, and see them on the disk."""
        self._waiting.append((step, points))
        try:
            for at, values in self._waiting:
                if at == 0:
                    self.experiment.add_custom_scalars(_LAYOUT)
                for tag, value in values.items():
                    self.experiment.add_scalar(tag, value, at)
            self.experiment.flush()
        except OSError as error:
            log.error(
                "TensorBoard's events could not be written: %s. Training goes on.", error.strerror or error
            )
            self._kwargs["purge_step"] = self._waiting[0][0]
            self._experiment = None
        else:
            self._waiting.clear()
