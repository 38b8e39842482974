"""An exponential moving average of the weights, which is what is validated, saved and asked."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from boneage_pl.model.distributed import average_batchnorm_statistics

_AHEAD = 10  # steps by which the average's memory is shorter than the run so far


class EMAWeights(WeightAveraging):
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
        super().__init__()
        self.decay = decay
        self._steps = 0  # as the average's own counter, which is on the device

    def on_train_start(self, _trainer: L.Trainer, module: L.LightningModule) -> None:
        """Follow the network to its device: Lightning made the average before it was moved."""
        if self._average_model is not None:
            self._average_model.to(module.device)
            self._steps = int(self._average_model.n_averaged)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        """Average the weights after a step of the optimizer.

        PyTorch's `update_parameters` would ask the device at each step how many there have been.
        """
        if self._average_model is None or trainer.global_step == self._latest_update_step:
            return
        self._latest_update_step = trainer.global_step
        self.update(self._average_model, module, self._steps)
        self._steps += 1

    @torch.no_grad()
    def update(self, average: AveragedModel, network: nn.Module, steps: int) -> None:
        """Move an average of `steps` networks towards one more."""
        decay = min(self.decay, (1 + steps) / (_AHEAD + steps)) if steps else 0.0
        pairs = list(zip(_tensors(average.module), _tensors(network), strict=True))
        floats = [(mean, value) for mean, value in pairs if mean.is_floating_point()]
        get_ema_multi_avg_fn(decay)(*map(list, zip(*floats, strict=True)), None)  # type: ignore[no-untyped-call]
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)
        average.n_averaged += 1

    def on_validation_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Validate the average; several processes go on from the same statistics, as when they resume."""
        if self._average_model is not None:
            average_batchnorm_statistics(module)
        super().on_validation_epoch_start(trainer, module)


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())
