"""What can be refused before a run folder is made."""

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, read_write

from boneage_pl.cli.checks import check_data_numbers, check_number
from boneage_pl.cli.entrypoint import exit_on_error
from boneage_pl.cli.overrides import expand_home, next_command, same_command
from boneage_pl.errors import BoneAgeError
from boneage_pl.run.folder import check_run_dir
from boneage_pl.run.hold import create_run_dir, is_rank_zero, lock_run_dir, unique_dir
from boneage_pl.run.runs import BEST, LAST, find_checkpoint, newest_run
from boneage_pl.run.sweep import summarize_sweep
from boneage_pl.run.trainer_options import apply_fast_dev_run, check_trainer


class Preflight(Callback):
    """Hydra calls this with the composed configuration, before it writes anything.

    Refuses by exiting, because Hydra turns exceptions in callbacks into warnings.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check a single run."""
        # as Hydra does next: the folder's name asks it for the experiment
        HydraConfig.instance().set_config(config)
        with exit_on_error(), read_write(config.hydra):
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
                config.hydra.run.dir = str(create_run_dir(run) if dated else lock_run_dir(run))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a sweep that no run of could be right."""
        with exit_on_error(), read_write(config.hydra):
            expand_home(config)
            check_sweep(config)
            check_launcher(config)
            if "${now:" in OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"]:  # type: ignore
                config.hydra.sweep.dir = str(unique_dir(Path(config.hydra.sweep.dir)))

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Check one run of a sweep; a single run has been checked."""
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.MULTIRUN:
            with exit_on_error():
                try:
                    check_sweep(config)
                    check_options(config)
                    if not check_run_dir(config, Path(hydra.runtime.output_dir), of_sweep=True):
                        find_warm_start(config)
                except BoneAgeError:
                    summarize_sweep(Path(hydra.sweep.dir))  # the runs before this one are not lost
                    raise

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Say what a sweep came to, and write it as sweep.csv."""
        summarize_sweep(Path(config.hydra.sweep.dir))


def temporary_run_dir() -> str:
    """Make a folder that ends with this process."""
    folder = tempfile.mkdtemp(prefix="fast_dev_run_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def check_options(config: DictConfig) -> None:
    """Raise `BoneAgeError` for a configuration that cannot be right, of a new run or of one that goes on."""
    for group in ("data", "model", "loss", "sampling", "optimizer", "trainer"):
        if not isinstance(config.get(group), DictConfig) or "_target_" not in config[group]:
            raise BoneAgeError(f"{group}={config.get(group)}: it must name an object to build, its _target_.")
    transforms = config.get("transforms")
    if not isinstance(transforms, DictConfig) or not {*transforms} <= {"train", "validation", "mix"}:
        raise BoneAgeError(
            "transforms: it must be a table of transforms by name for train, for validation; mix may be one."
        )
    if OmegaConf.select(config, "hydra.job.chdir"):
        raise BoneAgeError(
            "hydra.job.chdir=true: paths are as seen from the folder that a command is typed in.\n"
            "Leave it out; hydra.run.dir= names a run's folder."
        )
    if not isinstance(config.get("callbacks"), DictConfig) or "checkpoint" not in config.callbacks:
        raise BoneAgeError("callbacks: without callbacks.checkpoint nothing of a run would be kept.")
    check_model_numbers(config)
    check_devices(config)
    check_trainer(config.trainer)


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
    if _effective_batch(config.trainer) or _num_devices(config.trainer):
        raise BoneAgeError(
            "-m with trainer=ddp: each process that a run starts would start the whole sweep again.\n"
            "Sweep with one device a run (hydra/launcher=slurm has many runs at once), or start the runs one "
            "by one."
        )


def check_devices(config: DictConfig) -> None:
    """Raise `BoneAgeError` for several devices without the strategy that makes them train together."""
    if not _effective_batch(config.trainer) and _num_devices(config.trainer):
        raise BoneAgeError(
            f"trainer.devices={config.trainer.devices}: several devices are trained on with trainer=ddp;\n"
            "add it to the command."
        )


def _effective_batch(trainer: DictConfig) -> bool:
    return trainer.get("strategy") not in (None, "auto")


def _num_devices(trainer: DictConfig) -> bool:
    devices = trainer.devices
    one = len(devices) == 1 if isinstance(devices, ListConfig) else str(devices) == "1"
    return not one or trainer.get("num_nodes", 1) != 1


def check_model_numbers(config: DictConfig) -> None:
    """Raise `BoneAgeError` for a number that is none, or is out of its range."""
    check_data_numbers(config)
    check_number("optimizer.lr", config.optimizer.get("lr", 0), 0, whole=False)


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
        return find_checkpoint(str(config.ckpt), Path(config.outputs), name=epochs[epoch])
    if config.starts_from is not None:
        raise _missing_checkpoint_error(config)
    if state is not None:
        raise BoneAgeError("optimizer.state=checkpoint: name the checkpoint by ckpt=.")
    return None


def _missing_checkpoint_error(config: DictConfig) -> BoneAgeError:
    experiment = HydraConfig.get().runtime.choices["experiment"]
    run = newest_run(Path(config.outputs), config.starts_from)
    if run is None:
        advice = f"Train {config.starts_from} first:\n  {next_command(config.starts_from, None)}"
    else:
        advice = f"With the newest {config.starts_from} run here:\n  {same_command(str(run))}"
    return BoneAgeError(
        f"{experiment} starts from the weights of {config.starts_from} and needs ckpt=.\n{advice}"
    )
