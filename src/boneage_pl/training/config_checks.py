"""Refuse a configuration that cannot be right: unknown groups and options, the Trainer, devices, sweeps."""

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

_EPOCHS = "a run counts whole epochs: trainer.max_epochs, and trainer.limit_train_batches for shorter ones."
_OWN = "a run does this in its own way, by epoch and in its folder."
_EVALUATE = "boneage_pl.evaluate tests a trained model."
REJECTED_OPTIONS = {
    **dict.fromkeys(("max_steps", "min_steps", "max_time"), _EPOCHS),
    **dict.fromkeys(("limit_test_batches", "limit_predict_batches"), _EVALUATE),
    "overfit_batches": "it validates on training images: use trainer.limit_train_batches instead.",
    "val_check_interval": "trainer.check_val_every_n_epoch validates more seldom.",
    "logger": "loggers are options of their own: logger=csv.",
    "callbacks": "callbacks are options of their own: +callbacks.NAME._target_=…",
    "default_root_dir": "hydra.run.dir= names a run's folder.",
    **dict.fromkeys(("plugins", "enable_checkpointing", "log_every_n_steps", "barebones"), _OWN),
    **dict.fromkeys(("enable_autolog_hparams", "model_registry"), _OWN),
    # in conf/, because a run needs them so
    "inference_mode": "the metrics of a validation must live on into training.",
    "use_distributed_sampler": "the data module shares each batch among the processes itself.",
}
_FIXED = {"inference_mode": False, "use_distributed_sampler": False}


def check_typed_trainer_options(arguments: list[str]) -> None:
    """Raise `BoneAgeError` for a Trainer option that is not used here, before Hydra calls it unknown."""
    for argument in arguments:
        key = argument.lstrip("+~").partition("=")[0]
        if (name := key.removeprefix("trainer.")) != key and name in REJECTED_OPTIONS.keys() - _FIXED.keys():
            raise _rejection(name)


def _rejection(name: Any) -> BoneAgeError:
    return BoneAgeError(f"trainer.{name} is not used here: {REJECTED_OPTIONS[name]}")


def check_trainer(trainer: DictConfig) -> None:
    """Raise `BoneAgeError` for an option of the Trainer that is unknown, not used here, or out of range."""
    known = yaml.safe_load((CONF_DIR / "trainer" / "default.yaml").read_text(encoding="utf-8"))
    for name, value in trainer.items():
        if name in REJECTED_OPTIONS and value != _FIXED.get(str(name)):
            raise _rejection(name)
        if name not in known and name not in REJECTED_OPTIONS:
            raise BoneAgeError(f"trainer.{name!s}: there is no such option; --cfg job lists them.")
    strategy = trainer.get("strategy")
    if isinstance(strategy, str) and strategy != "auto" and not strategy.startswith("ddp"):
        raise BoneAgeError(
            f"trainer.strategy={strategy}: runs are trained on one device, or on several with trainer=ddp."
        )
    every = trainer.get("check_val_every_n_epoch", 1)
    if trainer.max_epochs % every and not trainer.get("fast_dev_run"):
        raise BoneAgeError(
            f"trainer.check_val_every_n_epoch={every}: of {trainer.max_epochs} epochs the last would not be "
            f"validated.\nTake a divisor of trainer.max_epochs, or trainer.max_epochs="
            f"{every * max(1, round(trainer.max_epochs / every))}."
        )


def check_options(config: DictConfig) -> None:
    """Raise `BoneAgeError` for a configuration that cannot be right, of a new or a resumed run."""
    for group in ONE_OF:
        if not _is_object(config.get(group)) and (group != "scheduler" or config.get(group) is not None):
            raise BoneAgeError(f"{group}={config.get(group)}: it must name an object to build, its _target_.")
    base = yaml.safe_load((CONF_DIR / "config.yaml").read_text(encoding="utf-8"))
    known = {*base, *(name for entry in base["defaults"] if isinstance(entry, dict) for name in entry)}
    if unknown := [str(key) for key in config if key not in known]:
        near = get_close_matches(unknown[0], known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BoneAgeError(f"{unknown[0]}: there is no such option; its settings would be ignored.{hint}")
    if missing := [key for key in base if key not in {*config, "defaults", "hydra"}]:
        raise BoneAgeError(f"{missing[0]}: this option is needed, and has been taken out.")
    transforms = config.get("transforms")
    if not isinstance(transforms, DictConfig) or not {*transforms} <= {"train", "validation"}:
        raise BoneAgeError("transforms: must be tables of transforms by name for train and validation.")
    for side, table in transforms.items():
        for name, node in (table or {}).items():
            if node is not None and not _is_object(node):
                option = f"transforms.{side!s}.{name!s}"
                raise BoneAgeError(f"{option}={node}: it must name a transform, its _target_, or be null.")
    if OmegaConf.select(config, "hydra.job.chdir"):
        raise BoneAgeError(
            "hydra.job.chdir=true: paths are as seen from the folder that a command is typed in.\n"
            "Leave it out; hydra.run.dir= names a run's folder."
        )
    if not _is_object(OmegaConf.select(config, "callbacks.checkpoint")):
        raise BoneAgeError("callbacks: without callbacks.checkpoint nothing of a run would be kept.")
    check_values(config)
    check_devices(config)
    check_trainer(config.trainer)
    normalize_precision(config.trainer.get("precision", AUTO))


def _is_object(node: Any) -> bool:
    return isinstance(node, DictConfig) and "_target_" in node


def check_launcher(config: DictConfig) -> None:
    """Raise `BoneAgeError` for a Slurm sweep where there is no Slurm."""
    if "Slurm" in config.hydra.launcher["_target_"] and shutil.which("srun") is None:
        raise BoneAgeError(
            "hydra/launcher=slurm: there is no srun on this machine. Start the sweep on a Slurm login node,\n"
            "or use hydra/launcher=submitit_local for processes of this machine."
        )


def check_sweep(config: DictConfig) -> None:
    """Raise `BoneAgeError` if the runs of a sweep would have several processes each, or keep nothing."""
    if config.trainer.get("fast_dev_run"):
        raise BoneAgeError(
            "-m with trainer.fast_dev_run: it keeps nothing to compare. Leave one of them out."
        )
    if _is_distributed(config.trainer) or _wants_several_devices(config.trainer):
        raise BoneAgeError(
            "-m with trainer=ddp: each process that a run starts would start the whole sweep again.\n"
            "Sweep with one device a run (hydra/launcher=slurm has many runs at once), or start the runs one "
            "by one."
        )


def check_devices(config: DictConfig) -> None:
    """Raise `BoneAgeError` for several devices without the strategy that makes them train together."""
    if not _is_distributed(config.trainer) and _wants_several_devices(config.trainer):
        raise BoneAgeError(
            f"trainer.devices={config.trainer.devices}: it is 1, or the number of one GPU as in [0]; several "
            "devices are trained on with trainer=ddp."
        )


def _is_distributed(trainer: DictConfig) -> bool:
    return trainer.get("strategy") not in (None, "auto")


def _wants_several_devices(trainer: DictConfig) -> bool:
    devices = trainer.devices
    one = len(devices) == 1 if isinstance(devices, ListConfig) else str(devices) == "1"
    return not one or trainer.get("num_nodes", 1) != 1
