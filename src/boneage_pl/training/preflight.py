"""Check a configuration before a run starts."""

import atexit
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, read_write

from boneage_pl.cli import CONF_DIR
from boneage_pl.cli.checks import check_values
from boneage_pl.cli.entrypoint import exit_on_error
from boneage_pl.cli.overrides import expand_home, next_command, same_command, to_grammar
from boneage_pl.errors import BoneAgeError
from boneage_pl.training.run_dir import (
    check_run_dir,
    is_rank_zero,
    lock_run_dir,
    save_hydra_files,
    unique_dir,
)
from boneage_pl.training.runs import BEST, LAST, find_checkpoint, newest_run
from boneage_pl.training.sweep import summarize_sweep
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


def apply_fast_dev_run(config: DictConfig) -> None:
    """Turn `trainer.fast_dev_run` into what it means: one epoch of so many batches."""
    batches = int(config.trainer.fast_dev_run)
    limits = {"limit_train_batches": batches, "limit_val_batches": batches}
    config.trainer.update(max_epochs=1, check_val_every_n_epoch=1, **limits)


@contextmanager
def _exit_on_any_error() -> Iterator[None]:
    """Exit on every error: Hydra turns exceptions in callbacks into warnings, and goes on."""
    try:
        with exit_on_error():
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


@contextmanager
def _known_to_hydra(config: DictConfig) -> Iterator[None]:
    """Set Hydra's configuration, as Hydra does next: the run folder's name needs it. It may be changed."""
    HydraConfig.instance().set_config(config)
    with read_write(config.hydra):
        yield


class Preflight(Callback):
    """Checks the composed configuration before Hydra, or anything else, writes into a run's folder.

    A refusal exits and changes nothing. Hydra would write `.hydra/` of a sweep's run before the check, so it
    is written here.
    """

    def __init__(self) -> None:
        self._sweep_before: tuple[Path, str | None] | None = None  # multirun.yaml, and what was in it

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check a single run."""
        with _exit_on_any_error(), _known_to_hydra(config):
            expand_home(config)
            check_options(config)
            dated = "${now:" in OmegaConf.to_container(config.hydra.run, resolve=False)["dir"]  # type: ignore
            if config.trainer.get("fast_dev_run"):
                apply_fast_dev_run(config)
                config.hydra.run.dir = temporary_run_dir()
                dated = False
            run = Path(config.hydra.run.dir)
            if not dated and check_run_dir(config, run):
                config.hydra.output_subdir = None  # what is in .hydra stays: a kill could cut it short
            else:
                find_warm_start(config)
            if is_rank_zero():  # before Hydra writes: of two commands with one folder one changes nothing
                config.hydra.run.dir = str(lock_run_dir(unique_dir(run) if dated else run))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a sweep that no run of could be right."""
        with _exit_on_any_error(), read_write(config.hydra):
            expand_home(config)
            check_sweep(config)
            check_launcher(config)
            if "${now:" in OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"]:  # type: ignore
                folder = unique_dir(Path(config.hydra.sweep.dir))
                config.hydra.sweep.dir = str(folder)
                config.hydra.overrides.hydra.append(to_grammar("hydra.sweep.dir", str(folder)))
            config.hydra.overrides.hydra.append("hydra.output_subdir=null")  # of each run
            file = Path(config.hydra.sweep.dir) / "multirun.yaml"
            self._sweep_before = file, file.read_text(encoding="utf-8") if file.exists() else None

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Check one run of a sweep; a single run has been checked."""
        hydra = HydraConfig.get()
        if hydra.mode != RunMode.MULTIRUN:
            return
        run = Path(hydra.runtime.output_dir)
        with _exit_on_any_error():
            try:
                check_sweep(config)
                check_options(config)
                resumes = check_run_dir(config, run, of_sweep=True)
                if not resumes:
                    find_warm_start(config)
                lock_run_dir(run)
            except BoneAgeError:
                self._restore(run)
                summarize_sweep(Path(hydra.sweep.dir))  # the runs before this one are not lost
                raise
            if not resumes:
                save_hydra_files(config, run)

    def _restore(self, run: Path) -> None:
        """Undo what Hydra has done for a refused run of a sweep: its record of the sweep, an empty folder."""
        if self._sweep_before is not None:
            file, content = self._sweep_before
            if content is not None:
                file.write_text(content, encoding="utf-8")
        with suppress(OSError):  # it is not empty
            run.rmdir()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the results of a sweep, and write sweep.csv."""
        summarize_sweep(Path(config.hydra.sweep.dir))


def temporary_run_dir() -> str:
    """Make a folder that ends with this process."""
    folder = tempfile.mkdtemp(prefix="fast_dev_run_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def check_options(config: DictConfig) -> None:
    """Raise `BoneAgeError` for a configuration that cannot be right, of a new or a resumed run."""
    for group in ("data", "model", "loss", "sampler", "optimizer", "trainer"):
        if not isinstance(config.get(group), DictConfig) or "_target_" not in config[group]:
            raise BoneAgeError(f"{group}={config.get(group)}: it must name an object to build, its _target_.")
    base = yaml.safe_load((CONF_DIR / "config.yaml").read_text(encoding="utf-8"))
    known = {*base, *(name for entry in base["defaults"] if isinstance(entry, dict) for name in entry)}
    if unknown := [str(key) for key in config if key not in known]:
        near = get_close_matches(unknown[0], known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BoneAgeError(f"{unknown[0]}: there is no such option; its settings would be ignored.{hint}")
    transforms = config.get("transforms")
    if not isinstance(transforms, DictConfig) or not {*transforms} <= {"train", "validation", "mixup"}:
        raise BoneAgeError(
            "transforms: must be tables of transforms by name for train and validation; mixup is optional."
        )
    if OmegaConf.select(config, "hydra.job.chdir"):
        raise BoneAgeError(
            "hydra.job.chdir=true: paths are as seen from the folder that a command is typed in.\n"
            "Leave it out; hydra.run.dir= names a run's folder."
        )
    if not isinstance(config.get("callbacks"), DictConfig) or "checkpoint" not in config.callbacks:
        raise BoneAgeError("callbacks: without callbacks.checkpoint nothing of a run would be kept.")
    check_values(config)
    check_devices(config)
    check_trainer(config.trainer)
    normalize_precision(config.trainer.get("precision", AUTO))


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


def find_warm_start(config: DictConfig) -> Path | None:
    """Return the checkpoint to start from, or `None` for random weights.

    Raises:
        BoneAgeError: `ckpt=` names nothing, or the experiment or its optimizer needs it.
    """
    state = config.optimizer.get("state")
    if state not in (None, "checkpoint"):
        raise BoneAgeError(f"optimizer.state={state}: it must be null or checkpoint.")
    epochs = {"best": BEST, "last": LAST}
    epoch = config.get("ckpt_epoch", "best")
    if epoch not in epochs:
        raise BoneAgeError(f"ckpt_epoch={epoch}: it must be best or last.")
    if config.ckpt is not None:
        return find_checkpoint(str(config.ckpt), Path(config.output_dir), name=epochs[epoch])
    if config.requires_ckpt_of is not None:
        raise _missing_checkpoint_error(config)
    if state is not None:
        raise BoneAgeError("optimizer.state=checkpoint: name the checkpoint by ckpt=.")
    return None


def _missing_checkpoint_error(config: DictConfig) -> BoneAgeError:
    experiment = HydraConfig.get().runtime.choices["experiment"]
    run = newest_run(Path(config.output_dir), config.requires_ckpt_of)
    if run is None:
        advice = f"Train {config.requires_ckpt_of} first:\n  {next_command(config.requires_ckpt_of, None)}"
    else:
        advice = f"With the newest {config.requires_ckpt_of} run here:\n  {same_command(str(run))}"
    return BoneAgeError(
        f"{experiment} starts from the weights of {config.requires_ckpt_of} and needs ckpt=.\n{advice}"
    )
