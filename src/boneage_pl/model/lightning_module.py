"""LightningModule that trains a network on bone ages."""

import logging
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanAbsoluteError

from boneage_pl.data.dataset import Batch
from boneage_pl.data.transforms.compose import Compose
from boneage_pl.data.transforms.geometric import RandomHorizontalFlip
from boneage_pl.model.distributed import average_batchnorm_statistics, gather
from boneage_pl.model.inference import InferenceModule, Loss
from boneage_pl.model.optim import OptimizerFactory, SchedulerFactory, base_lr, load_optimizer_state

log = logging.getLogger(__name__)

VAL_METRICS = ("val_mae", "val_mae_girls", "val_mae_boys")


class BoneAgeModule(L.LightningModule):
    """Train a network and validate it in months.

    Args:
        network: image [B, C, H, W], normalized by its `InputSpec`, and male [B] → output.
        optimizer: network → optimizer.
        scheduler: optimizer and the run's length → scheduler, or `None` for a constant rate.
        interval: `epoch` or `step`, the unit of scheduler steps and of `length`.
        length: of the run, in intervals.
        loss: see `boneage_pl.model.inference`; `None` for the published L1.
        transforms: for training and validation batches; `None` for the published flip.
        optimizer_state: initial state from another run; `None` for a new one.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        interval: str = "epoch",
        length: int = 1,
        loss: Loss | None = None,
        transforms: tuple[Compose, Compose] | None = None,
        optimizer_state: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.train_transforms, validation = transforms or (Compose([RandomHorizontalFlip()]), Compose())
        # Convolutions on CPUs and GPUs are fastest in channels-last memory.
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.inference = InferenceModule(network, validation, nn.L1Loss() if loss is None else loss)
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.interval = interval
        self.length = length
        self.optimizer_state = optimizer_state
        self.compiled = False
        self.train_mae = MeanAbsoluteError()
        self.val_mae = nn.ModuleList(MeanAbsoluteError() for _ in VAL_METRICS)
        # predictions of the latest validation: row in the subset, months
        self.validation: dict[str, list[Any]] = {"row": [], "predicted": []}

    @property
    def network(self) -> nn.Module:
        """The trained network."""
        return self.inference.network

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        """Return the network's output: [B, C, H, W] and [B] → [B, …]."""
        return self.network(image, male)  # type: ignore[no-any-return]

    def compile_network(self, mode: str) -> None:
        """Compile the network on first use.

        Not the transforms: PyTorch 2.11 on CPUs compiled a blur after an intensity change to different
            pixels.

        Args:
            mode: see `torch.compile`.
        """
        self.network.compile(mode=mode, dynamic=False)  # type: ignore[no-untyped-call]
        self.compiled = True
        self._allow_compiling(False)

    def _allow_compiling(self, allowed: bool) -> None:
        """Allow compilation for the first batch only, so that the smaller last batch runs eagerly."""
        if self.compiled:
            torch.compiler.set_stance("default" if allowed else "eager_on_recompile")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Augment and normalize a training batch on the device: uint8 [B, 1, H, W] → [B, C, H, W]."""
        if not self.trainer.training:
            return batch
        image = self.inference.normalize(self.train_transforms(batch["image"], batch["key"]))
        return {**batch, "image": image.to(self.dtype, memory_format=torch.channels_last)}

    def training_step(self, batch: Batch, _batch_index: int) -> Tensor:
        """Return the batch's loss."""
        output = self(batch["image"], batch["male"])
        self.train_mae.update(self.inference.decode_months(output).detach(), batch["bone_age"])
        if self.trainer.is_last_batch:  # logging is slower than a small network's step
            self.log("train_mae", self.train_mae, on_step=False, on_epoch=True, logger=False)
        return self.inference.compute_loss(output, batch["bone_age"])

    def on_train_epoch_start(self) -> None:
        """Drop the last epoch's predictions, in case this one is not validated."""
        self.validation = {"row": [], "predicted": []}
        self._allow_compiling(True)

    def on_train_batch_end(self, *_: Any) -> None:
        """Disable compilation after the first batch."""
        self._allow_compiling(False)

    @property
    def validation_outputs(self) -> bool:
        """Whether the current epoch has been validated."""
        return bool(self.validation["row"])

    def on_validation_epoch_start(self) -> None:
        """Start collecting predictions, with the same BatchNorm statistics in all processes."""
        self._predictions: list[dict[str, Tensor]] = []
        average_batchnorm_statistics(self.network)
        self._allow_compiling(True)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Disable compilation after the first batch."""
        self._allow_compiling(False)

    def validation_step(self, batch: Batch, _batch_index: int) -> None:
        """Predict a validation batch."""
        predicted, std = self.inference.predict_with_std(batch["image"], batch["male"], batch["key"])
        outputs = {name: batch[name] for name in ("row", "bone_age", "male")}
        outputs["predicted"] = predicted.clone()  # the next batch overwrites the output of a CUDA graph
        if std is not None:
            outputs["predicted_std"] = std.clone()
        self._predictions.append(outputs)

    def on_validation_epoch_end(self) -> None:
        """Log the validation MAEs and store the predictions for checkpoint and figures."""
        parts = self._predictions
        columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        months, boys, predicted = columns.pop("bone_age"), columns.pop("male") > 0.5, columns["predicted"]
        subsets = (torch.ones_like(boys), ~boys, boys)
        for name, metric, rows in zip(VAL_METRICS, self.val_mae, subsets, strict=True):
            assert isinstance(metric, MeanAbsoluteError)
            metric.update(predicted[rows], months[rows])
            self.log(name, metric.compute(), logger=False)  # over all processes
            metric.reset()
        values = [v.float().tolist() if v.is_floating_point() else v.tolist() for v in columns.values()]
        gathered = zip(*sorted(gather(list(zip(*values, strict=True)))), strict=True)
        self.validation = dict(zip(columns, map(list, gathered), strict=True))

    def build_optimizer(self) -> tuple[Optimizer, Any]:
        """Build the configured optimizer and scheduler."""
        optimizer = self.make_optimizer(self.network)
        return optimizer, self.make_scheduler(optimizer, self.length) if self.make_scheduler else None

    def configure_optimizers(self) -> Any:
        """Return optimizer and scheduler for Lightning."""
        optimizer, scheduler = self.build_optimizer()
        if self.optimizer_state is not None:
            load_optimizer_state(optimizer, self.optimizer_state)
            self.optimizer_state = None
        if self.trainer.gradient_clip_val:  # unscale gradients before clipping, not within a fused optimizer
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        if scheduler is None:
            return optimizer
        plateau = isinstance(scheduler, ReduceLROnPlateau)  # needs a validation metric
        every = self.trainer.check_val_every_n_epoch if plateau else 1
        steps = {"scheduler": scheduler, "interval": self.interval, "frequency": every, "monitor": "val_mae"}
        return {"optimizer": optimizer, "lr_scheduler": steps}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler, except a plateau scheduler; see `on_train_epoch_end`."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_end(self) -> None:
        """Step a plateau scheduler and log a reduction, which PyTorch no longer prints.

        Lightning would step it after the checkpoint is saved and not repeat the step on resume: a run resumed
        right after a reduction would continue at the old rate.
        """
        if not self.validation_outputs:
            average_batchnorm_statistics(self.network)  # done by validation otherwise
        scheduler = self.lr_schedulers()
        if not isinstance(scheduler, ReduceLROnPlateau) or not self.validation_outputs:
            return
        before = base_lr(scheduler.optimizer)
        scheduler.step(float(self.trainer.callback_metrics["val_mae"]))
        after = base_lr(scheduler.optimizer)
        if after < before:
            epoch = self.current_epoch + 1
            log.info("Epoch %05d: reducing learning rate of group 0 to %.4e.", epoch, after)
