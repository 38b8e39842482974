"""BatchNorm's running statistics, estimated anew with weights that stand still."""

from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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

    They are saved and asked with the weights that they belong to. Training itself is unchanged: it normalises
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
