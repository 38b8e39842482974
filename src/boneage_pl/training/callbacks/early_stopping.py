"""Early stopping that survives a resume."""

import logging
from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason as Reason

log = logging.getLogger(__name__)


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, which logs its reason, and stops a resumed run again."""

    @property
    def has_stopped(self) -> bool:
        """Whether the run has been stopped, now or before it was cut off."""
        return self.stopping_reason is not Reason.NOT_STOPPED

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Leave a run that was cut off between its last epoch and its report, or was given more epochs."""
        trainer.should_stop = trainer.should_stop or self.has_stopped

    def on_train_end(self, *_: Any) -> None:
        """Log the reason."""
        if not self.has_stopped:
            return
        why = {
            Reason.PATIENCE_EXHAUSTED: f"{self.monitor} has not become better for {self.wait_count} epochs",
            Reason.NON_FINITE_METRIC: f"{self.monitor} is no number any more",
        }
        log.info(
            "stopped early: after epoch %d %s",
            self.stopped_epoch,
            why.get(self.stopping_reason, self.stopping_reason_message),
        )
