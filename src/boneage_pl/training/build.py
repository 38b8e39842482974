"""Build the data module, the Lightning module and the trainer."""

import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from omegaconf import DictConfig, OmegaConf
from torch import nn

from boneage_pl.cli.instantiate import instantiate, instantiate_partial
from boneage_pl.data.cache.build import DatasetIndex
from boneage_pl.data.datamodule import BoneAgeDataModule
from boneage_pl.data.transforms.compose import Compose
from boneage_pl.errors import BoneAgeError
from boneage_pl.model.lightning_module import BoneAgeModule
from boneage_pl.model.optim import build_optimizer_factory, build_scheduler_factory
from boneage_pl.training.callbacks.checkpointing import AtomicCheckpointIO
from boneage_pl.training.callbacks.logging import check_monitors
from boneage_pl.training.initial_state import InitialState
from boneage_pl.training.loggers import build_loggers
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.run_dir import to_plain
from boneage_pl.utils.hardware import disable_tf32, keep_freed_memory, syncs_batchnorm

log = logging.getLogger(__name__)

# options of the split, and where a checkpoint's split has them
_SPLIT_OPTIONS = {
    "split_protocol": "protocol",
    "age_bins": "age_bins",
    "samples_per_group": "samples_per_group",
    "val_fraction": "val_fraction",
    "fold": "fold",
    "split_seed": "seed",
}
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")  # PyTorch's


def build_datamodule(
    cfg: DictConfig, beginning: InitialState, index: DatasetIndex | None
) -> BoneAgeDataModule:
    """Build the configured data with the split that the run begins with, exactly so where it is resumed."""
    # a partial: instantiate() would carry the plain values of `origin` through configuration objects
    make: Callable[..., BoneAgeDataModule] = instantiate_partial(cfg.data, "data")
    given: dict[str, Any] = {
        "origin": beginning.split,
        "index": index,
        "sampler": instantiate_partial(cfg.sampler, "sampler"),
    }
    if beginning.resumed:
        given.update(split_file=None, split_from="checkpoint", allow_leakage=False)
    elif beginning.checkpoint and HydraConfig.initialized():
        check_split_options(cfg, beginning.checkpoint.metadata, HydraConfig.get().overrides.task)
    return make(**given)


def check_split_options(cfg: DictConfig, start: CheckpointMetadata, typed: Iterable[str]) -> None:
    """Refuse options of the split that are typed, and that the split of the checkpoint overrules.

    Raises:
        BoneAgeError: naming the option, and what to add.
    """
    if cfg.data.get("split_file") or cfg.data.get("split_from") != "checkpoint":
        return
    used = {f"data.{name}": start.split.get(key) for name, key in _SPLIT_OPTIONS.items()}
    used["sampler"] = start.config.get("sampler")
    for override in typed:
        name, _, value = override.lstrip("+~").partition("=")
        now = OmegaConf.select(cfg, name) if name in used else None
        if name in used and used[name] not in (None, to_plain(now) if isinstance(now, DictConfig) else now):
            kept = "" if name == "sampler" else f", of {name}={used[name]}"
            raise BoneAgeError(
                f"{name}={value}: with ckpt= the checkpoint's split is used{kept}.\n"
                "Leave it out, or draw another split: data.split_from=new; or new_keep_train, which keeps\n"
                "every image that the checkpoint was trained on in the training set."
            )


def build_module(
    cfg: DictConfig,
    network: nn.Module,
    precision: str,
    data: BoneAgeDataModule,
    processes: int = 1,
    optimizer_state: dict[str, Any] | None = None,
) -> BoneAgeModule:
    """Build the configured LightningModule."""
    scheduler, interval = build_scheduler_factory(cfg.scheduler) if cfg.get("scheduler") else (None, "epoch")
    length = cfg.trainer.max_epochs
    if interval == "step":
        limit = cfg.trainer.get("limit_train_batches")
        length *= data.steps(cfg.trainer.accumulate_grad_batches, limit, processes)
    transforms = instantiate(cfg.transforms, "transforms")
    module = BoneAgeModule(
        network,
        build_optimizer_factory(_unfused(cfg, precision).optimizer),
        scheduler,
        interval,
        length,
        instantiate(cfg.loss, "loss"),
        (Compose.from_config(transforms.get("train")), Compose.from_config(transforms.get("validation"))),
        optimizer_state,
    )
    if cfg.compile:
        module.compile_network("default" if cfg.compile is True else cfg.compile)
    return module


def check_compile(mode: bool | str) -> None:
    """Raise `BoneAgeError` if torch.compile has no such mode."""
    if mode not in (True, False, *COMPILE_MODES):
        raise BoneAgeError(f"compile={mode}: there are true, false, {', '.join(COMPILE_MODES)}.")


def _unfused(cfg: DictConfig, precision: str) -> DictConfig:
    """Unfuse the optimizer where gradients are clipped that a fused one would scale."""
    if not (cfg.trainer.get("gradient_clip_val") and cfg.optimizer.get("fused") and "mixed" in precision):
        return cfg
    log.info("optimizer.fused=false: %s gradients of a fused optimizer cannot be clipped", precision)
    return OmegaConf.merge(cfg, {"optimizer": {"fused": False}})  # type: ignore[return-value]


def build_trainer(
    cfg: DictConfig, run: Path, precision: str, own: list[Callback], purge: int | None
) -> L.Trainer:
    """Build the configured trainer, writing under `run`, with the configured callbacks and then our `own`.

    Epochs from `purge` on are trained again, see `build_loggers`.
    """
    bar = sys.stderr.isatty() if cfg.trainer.enable_progress_bar is None else cfg.trainer.enable_progress_bar
    callbacks = [c for c in instantiate(cfg.callbacks, "callbacks").values() if c is not None]
    check_monitors(callbacks)
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        "trainer",
        precision=precision,
        enable_progress_bar=bar,
        sync_batchnorm=syncs_batchnorm(cfg.trainer.sync_batchnorm, cfg.trainer.accelerator),
        benchmark=cfg.trainer.benchmark and not cfg.trainer.get("deterministic"),
        plugins=[AtomicCheckpointIO()],
        logger=build_loggers(cfg.get("logger"), run, purge),
        callbacks=[*callbacks, *([TQDMProgressBar(leave=False)] if bar else []), *own],
        default_root_dir=run,
        **({"fast_dev_run": False} if "fast_dev_run" in cfg.trainer else {}),  # done by then: see preflight
    )
    disable_tf32()
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    return trainer
