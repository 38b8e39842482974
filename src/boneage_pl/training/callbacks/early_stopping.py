"""Early stopping that survives a resume."""

import logging
from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason as Reason

log = logging.getLogger(__name__)


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, with a logged reason, which also stops a resumed run."""

    @property
    def has_stopped(self) -> bool:
        """Whether the run has been stopped, now or before an interruption."""
        return self.stopping_reason is not Reason.NOT_STOPPED

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop a resumed run that had been stopped before."""
        trainer.should_stop = trainer.should_stop or self.has_stopped

    def on_train_end(self, *_: Any) -> None:
        """Log the reason."""
        if not self.has_stopped:
            return
        reasons = {
            Reason.PATIENCE_EXHAUSTED: f"{self.monitor} has not improved for {self.wait_count} epochs",
            Reason.NON_FINITE_METRIC: f"{self.monitor} is not finite",
        }
        log.info(
            "stopped early: after epoch %d %s",
            self.stopped_epoch,
            reasons.get(self.stopping_reason, self.stopping_reason_message),
        )
