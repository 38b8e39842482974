"""Reject invalid configurations: unknown groups and options, Trainer options, devices, sweeps."""

import shutil
from difflib import get_close_matches
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from boneage_pl.cli import CONF_DIR
from boneage_pl.cli.checks import check_values
from boneage_pl.cli.entrypoint import ONE_OF
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.precision import AUTO, normalize_precision

_EPOCHS = "use trainer.max_epochs, and trainer.limit_train_batches for shorter epochs."
_OWN = "runs handle this themselves, by epoch and in their folder."
_EVALUATE = "evaluate a trained model with boneage_pl.evaluate."
REJECTED_OPTIONS = {
    **dict.fromkeys(("max_steps", "min_steps", "max_time"), _EPOCHS),
    **dict.fromkeys(("limit_test_batches", "limit_predict_batches"), _EVALUATE),
    "overfit_batches": "it validates on training images; use trainer.limit_train_batches.",
    "val_check_interval": "use trainer.check_val_every_n_epoch.",
    "logger": "use the group logger, as in logger=csv.",
    "callbacks": "use the group callbacks, as in +callbacks.NAME._target_=…",
    "default_root_dir": "use hydra.run.dir=.",
    **dict.fromkeys(("plugins", "enable_checkpointing", "log_every_n_steps", "barebones"), _OWN),
    **dict.fromkeys(("enable_autolog_hparams", "model_registry"), _OWN),
    # set in conf/; a run needs these values
    "inference_mode": "validation metrics are used in training.",
    "use_distributed_sampler": "the data module distributes the batches.",
}
_FIXED = {"inference_mode": False, "use_distributed_sampler": False}


def check_typed_trainer_options(arguments: list[str]) -> None:
    """Raise `BoneAgeError` for a Trainer option that is not supported, before Hydra reports it as unknown."""
    for argument in arguments:
        key = argument.lstrip("+~").partition("=")[0]
        if (name := key.removeprefix("trainer.")) != key and name in REJECTED_OPTIONS.keys() - _FIXED.keys():
            raise _rejection(name)


def _rejection(name: Any) -> BoneAgeError:
    return BoneAgeError(f"trainer.{name} is not supported: {REJECTED_OPTIONS[name]}")


def check_trainer(trainer: DictConfig) -> None:
    """Raise `BoneAgeError` for a Trainer option that is unknown, not supported, or out of range."""
    known = yaml.safe_load((CONF_DIR / "trainer" / "default.yaml").read_text(encoding="utf-8"))
    for name, value in trainer.items():
        if name in REJECTED_OPTIONS and value != _FIXED.get(str(name)):
            raise _rejection(name)
        if name not in known and name not in REJECTED_OPTIONS:
            raise BoneAgeError(f"trainer.{name!s}: no such option; --cfg job lists them.")
    strategy = trainer.get("strategy")
    if isinstance(strategy, str) and strategy != "auto" and not strategy.startswith("ddp"):
        raise BoneAgeError(f"trainer.strategy={strategy}: use trainer=ddp for several devices.")
    every = trainer.get("check_val_every_n_epoch", 1)
    if trainer.max_epochs % every and not trainer.get("fast_dev_run"):
        raise BoneAgeError(
            f"trainer.check_val_every_n_epoch={every}: the last of {trainer.max_epochs} epochs would not be "
            f"validated.\nUse a divisor of trainer.max_epochs, or trainer.max_epochs="
            f"{every * max(1, round(trainer.max_epochs / every))}."
        )


def check_options(config: DictConfig) -> None:
    """Raise `BoneAgeError` for an invalid configuration of a new or resumed run."""
    for group in ONE_OF:
        if not _is_object(config.get(group)) and (group != "scheduler" or config.get(group) is not None):
            raise BoneAgeError(f"{group}={config.get(group)}: it must have a _target_.")
    base = yaml.safe_load((CONF_DIR / "config.yaml").read_text(encoding="utf-8"))
    known = {*base, *(name for entry in base["defaults"] if isinstance(entry, dict) for name in entry)}
    if unknown := [str(key) for key in config if key not in known]:
        near = get_close_matches(unknown[0], known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BoneAgeError(f"{unknown[0]}: no such option.{hint}")
    if missing := [key for key in base if key not in {*config, "defaults", "hydra"}]:
        raise BoneAgeError(f"{missing[0]}: this option is required but was removed.")
    transforms = config.get("transforms")
    if not isinstance(transforms, DictConfig) or not {*transforms} <= {"train", "validation"}:
        raise BoneAgeError("transforms: must be tables of transforms by name for train and validation.")
    for side, table in transforms.items():
        for name, node in (table or {}).items():
            if node is not None and not _is_object(node):
                option = f"transforms.{side!s}.{name!s}"
                raise BoneAgeError(f"{option}={node}: it must have a _target_, or be null.")
    if OmegaConf.select(config, "hydra.job.chdir"):
        raise BoneAgeError(
            "hydra.job.chdir=true is not supported: paths are relative to the working folder.\n"
            "Leave it out; set a run's folder with hydra.run.dir=."
        )
    if not _is_object(OmegaConf.select(config, "callbacks.checkpoint")):
        raise BoneAgeError("callbacks: callbacks.checkpoint is required; without it no checkpoint is saved.")
    check_values(config)
    check_devices(config)
    check_trainer(config.trainer)
    normalize_precision(config.trainer.get("precision", AUTO))


def _is_object(node: Any) -> bool:
    return isinstance(node, DictConfig) and "_target_" in node


def check_launcher(config: DictConfig) -> None:
    """Raise `BoneAgeError` for a Slurm sweep without Slurm."""
    if "Slurm" in config.hydra.launcher["_target_"] and shutil.which("srun") is None:
        raise BoneAgeError(
            "hydra/launcher=slurm: srun is not available. Start the sweep on a Slurm login node,\n"
            "or use hydra/launcher=submitit_local for local processes."
        )


def check_sweep(config: DictConfig) -> None:
    """Raise `BoneAgeError` for a sweep with several processes per run, or with fast_dev_run."""
    if config.trainer.get("fast_dev_run"):
        raise BoneAgeError("-m with trainer.fast_dev_run: nothing is kept to compare. Leave one of them out.")
    if _is_distributed(config.trainer) or _wants_several_devices(config.trainer):
        raise BoneAgeError(
            "-m with trainer=ddp: each process of a run would start the whole sweep again.\n"
            "Use one device per run (hydra/launcher=slurm runs many at once), or start the runs one by one."
        )


def check_devices(config: DictConfig) -> None:
    """Raise `BoneAgeError` for several devices without a distributed strategy."""
    if not _is_distributed(config.trainer) and _wants_several_devices(config.trainer):
        raise BoneAgeError(
            f"trainer.devices={config.trainer.devices}: it must be 1, or one GPU as in [0]; use trainer=ddp "
            "for several devices."
        )


def _is_distributed(trainer: DictConfig) -> bool:
    return trainer.get("strategy") not in (None, "auto")


def _wants_several_devices(trainer: DictConfig) -> bool:
    devices = trainer.devices
    single = len(devices) == 1 if isinstance(devices, ListConfig) else str(devices) == "1"
    return not single or trainer.get("num_nodes", 1) != 1
