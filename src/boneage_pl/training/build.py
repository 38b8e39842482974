"""Build the data module, the Lightning module and the trainer."""

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

# options of the split and their keys in a checkpoint's split record
_SPLIT_OPTIONS = {
    "split_protocol": "protocol",
    "age_bins": "age_bins",
    "samples_per_group": "samples_per_group",
    "val_fraction": "val_fraction",
    "fold": "fold",
    "split_seed": "seed",
}
COMPILE_MODES = (
    "default",
    "reduce-overhead",
    "max-autotune",
    "max-autotune-no-cudagraphs",
)  # of torch.compile


def build_datamodule(cfg: DictConfig, initial: InitialState, index: DatasetIndex | None) -> BoneAgeDataModule:
    """Build the data module, with the checkpoint's split for a warm start or a resumed run."""
    # a partial, since instantiate() would convert the plain values of `origin` to configuration objects
    build: Callable[..., BoneAgeDataModule] = instantiate_partial(cfg.data, "data")
    arguments: dict[str, Any] = {
        "origin": initial.split,
        "index": index,
        "sampler": instantiate_partial(cfg.sampler, "sampler"),
    }
    if initial.resumed:
        arguments.update(split_file=None, split_from="checkpoint", allow_leakage=False)
    elif initial.checkpoint and HydraConfig.initialized():
        check_split_options(cfg, initial.checkpoint.metadata, HydraConfig.get().overrides.task)
    return build(**arguments)


def check_split_options(cfg: DictConfig, start: CheckpointMetadata, typed: Iterable[str]) -> None:
    """Reject typed split options that the checkpoint's split would override.

    Raises:
        BoneAgeError: with the option and the alternatives.
    """
    if cfg.data.get("split_file") or cfg.data.get("split_from") != "checkpoint":
        return
    used = {f"data.{name}": start.split.get(key) for name, key in _SPLIT_OPTIONS.items()}
    used["sampler"] = start.config.get("sampler")
    for override in typed:
        name, _, value = override.lstrip("+~").partition("=")
        new = OmegaConf.select(cfg, name) if name in used else None
        if name in used and used[name] not in (None, to_plain(new) if isinstance(new, DictConfig) else new):
            stored = "" if name == "sampler" else f", with {name}={used[name]}"
            raise BoneAgeError(
                f"{name}={value}: ckpt= uses the checkpoint's split{stored}.\n"
                "Leave it out, or draw a new split with data.split_from=new, or with new_keep_train, which\n"
                "keeps the checkpoint's training images in the training set."
            )


def build_module(
    cfg: DictConfig,
    network: nn.Module,
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
        build_optimizer_factory(cfg.optimizer),
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
    """Raise `BoneAgeError` for an unknown mode of torch.compile."""
    if mode not in (True, False, *COMPILE_MODES):
        raise BoneAgeError(f"compile={mode}: choose from true, false, {', '.join(COMPILE_MODES)}.")


def build_trainer(
    cfg: DictConfig, run: Path, precision: str, own_callbacks: list[Callback], purge: int | None
) -> L.Trainer:
    """Build the configured trainer, which writes under `run`, with the configured and then our own callbacks.

    Loggers drop epochs from `purge` on, see `build_loggers`.
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
        callbacks=[*callbacks, *([TQDMProgressBar(leave=False)] if bar else []), *own_callbacks],
        default_root_dir=run,
        **({"fast_dev_run": False} if "fast_dev_run" in cfg.trainer else {}),  # applied by preflight
    )
    disable_tf32()
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    return trainer
