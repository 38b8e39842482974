"""An exponential moving average of the weights, which is what is validated, saved and asked."""

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from boneage_pl.model.processes import average_statistics

_AHEAD = 10  # steps by which the average's memory is shorter than the run so far


class Averaged(WeightAveraging):
    """Averages weights and BatchNorm's statistics over the steps, the latest `1 / (1 − decay)` weighing most.

    A run's checkpoints hold the average as the network, and what training goes on from beside it. At the
    start, where there is little to average, the memory is shorter: (1 + n) / (10 + n) after n steps, as
    TensorFlow's `ExponentialMovingAverage` has it.

    Args:
        decay: share of the average that stays at each step.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} is no share below 1")
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay

    def on_train_start(self, _trainer: L.Trainer, module: L.LightningModule) -> None:
        """Follow the network to its device: Lightning made the average before it was moved."""
        if self._average_model is not None:
            self._average_model.to(module.device)

    def on_validation_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Validate the average; several processes go on from the same statistics, as when they resume."""
        if self._average_model is not None:
            average_statistics(module)
        super().on_validation_epoch_start(trainer, module)

    def _average(self, averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (_AHEAD + n)))(averaged, current, count)  # type: ignore[no-untyped-call]
