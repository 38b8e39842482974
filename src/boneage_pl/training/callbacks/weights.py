"""Callbacks on weights: exponential moving average, BatchNorm recalibration."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
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


SeenBatch = tuple[Tensor, Tensor]  # images [B, C, H, W] and male [B], as the network is given them


@torch.no_grad()
def recalibrate_batchnorm(network: nn.Module, batches: Iterable[SeenBatch]) -> None:
    """Set every BatchNorm's running mean and variance to their means over batches, without other changes.

    While a network is trained its running statistics are of weights that it no longer has: by default each
    step brings a tenth of its batch's. At high learning rates they are far from what the network's layers put
    out, and a validation, which uses them, shows that instead of the weights.

    Args:
        network: whose other layers, as dropout, are in evaluation meanwhile.
        batches: at least one.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta, modes = [m.momentum for m in layers], {m: m.training for m in network.modules()}
    network.eval()
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
    for image, male in batches:
        network(image, male)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for module, mode in modes.items():
        module.training = mode


class BatchNormRecalibration(Callback):
    """Re-estimates BatchNorm's statistics before each validation of a training, of the epoch's last batches.

    They are saved and used with the weights that they belong to. Training itself is unchanged: it normalizes
    by its own batches.

    Args:
        batches: of the epoch's end that are kept for it, on the device; at 500 pixels one of 32 has 96 MB.
    """

    def __init__(self, batches: int = 16) -> None:
        if batches < 1:
            raise ValueError(f"batches={batches}: at least one is needed")
        self.batches = batches
        self.kept: list[SeenBatch] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Forget the batches of an epoch that was not validated."""
        self.kept = []

    def on_train_batch_end(
        self, trainer: L.Trainer, _module: L.LightningModule, _outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch, if it is one of the epoch's last."""
        if batch_idx >= trainer.num_training_batches - self.batches:
            self.kept.append((batch["image"], batch["male"]))

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Estimate anew."""
        if self.kept:
            with trainer.precision_plugin.forward_context():
                recalibrate_batchnorm(module, self.kept)
            self.kept = []
