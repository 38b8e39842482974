"""What can be refused before a run folder is made."""

import shutil
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, read_write

from boneage_pl.command import next_command, same_command
from boneage_pl.entry import refusing
from boneage_pl.errors import BoneageError
from boneage_pl.numbers import check_data_numbers, check_number
from boneage_pl.report.sweep import conclude_sweep
from boneage_pl.run_folder import check_folder, first_process, hold
from boneage_pl.runs import find_checkpoint, newest_run


class Preflight(Callback):
    """Hydra calls this with the composed configuration, before it writes anything.

    Refuses by exiting, because Hydra turns exceptions in callbacks into warnings.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check a single run."""
        # as Hydra does next: the folder's name asks it for the experiment
        HydraConfig.instance().set_config(config)
        run = Path(config.hydra.run.dir)
        with refusing():
            continues = check(config, run)
            if first_process():
                hold(run)  # before Hydra writes: of two commands with one folder the second changes nothing
        if continues:
            with read_write(config.hydra):
                config.hydra.output_subdir = None  # what is in .hydra stays: a kill could cut it short

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a sweep that no run of could be right."""
        with refusing():
            check_sweep(config)
            check_launcher(config)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Check one run of a sweep; a single run has been checked."""
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.MULTIRUN:
            with refusing():
                try:
                    check_sweep(config)
                    check(config, Path(hydra.runtime.output_dir))
                except BoneageError:
                    conclude_sweep(Path(hydra.sweep.dir))  # the runs before this one are not lost
                    raise

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Say what a sweep came to, and write it as sweep.csv."""
        conclude_sweep(Path(config.hydra.sweep.dir))


def check(config: DictConfig, run: Path) -> bool:
    """Return whether the command continues what `run` holds.

    Raises:
        BoneageError: a configuration that cannot be right, or a folder that `run` may not be.
    """
    check_numbers(config)
    check_devices(config)
    if check_folder(config, run):
        return True
    find_start(config)
    return False


def check_launcher(config: DictConfig) -> None:
    """Raise `BoneageError` for a Slurm sweep where there is no Slurm."""
    if "Slurm" in config.hydra.launcher["_target_"] and shutil.which("srun") is None:
        raise BoneageError(
            "hydra/launcher=slurm: there is no srun on this machine. Start the sweep on a Slurm login node,\n"
            "or use hydra/launcher=submitit_local for processes of this machine."
        )


def check_sweep(config: DictConfig) -> None:
    """Raise `BoneageError` if the runs of a sweep would have several processes each."""
    if config.trainer.get("strategy") is not None or _several_devices(config.trainer):
        raise BoneageError(
            "-m with trainer=ddp: each process that a run starts would start the whole sweep again.\n"
            "Sweep with one device a run (hydra/launcher=slurm has many runs at once), or start the runs one "
            "by one."
        )


def check_devices(config: DictConfig) -> None:
    """Raise `BoneageError` for several devices without the strategy that makes them train together."""
    if config.trainer.get("strategy") is None and _several_devices(config.trainer):
        raise BoneageError(
            f"trainer.devices={config.trainer.devices}: several devices are trained on with trainer=ddp;\n"
            "add it to the command."
        )


def _several_devices(trainer: DictConfig) -> bool:
    devices = trainer.devices
    one = len(devices) == 1 if isinstance(devices, ListConfig) else str(devices) == "1"
    return not one or trainer.get("num_nodes", 1) != 1


def check_numbers(config: DictConfig) -> None:
    """Raise `BoneageError` for a number that is none, or is out of its range."""
    check_data_numbers(config)
    for name, value in config.model.items():
        if isinstance(value, int):
            check_number(f"model.{name}", value, 1)
    check_number("trainer.max_epochs", config.trainer.max_epochs, 1)
    check_number("trainer.accumulate_grad_batches", config.trainer.accumulate_grad_batches, 1)
    check_number("optimizer.lr", config.optimizer.get("lr", 0), 0, whole=False)


def find_start(config: DictConfig) -> Path | None:
    """Return the checkpoint to start from, or `None` for random weights.

    Raises:
        BoneageError: `ckpt=` names nothing, or the experiment cannot do without it.
    """
    if config.ckpt is not None:
        return find_checkpoint(str(config.ckpt), Path(config.outputs))
    if config.starts_from is not None:
        raise _no_checkpoint(config)
    return None


def _no_checkpoint(config: DictConfig) -> BoneageError:
    experiment = HydraConfig.get().runtime.choices["experiment"]
    run = newest_run(Path(config.outputs), config.starts_from)
    if run is None:
        advice = f"Train {config.starts_from} first:\n  {next_command(config.starts_from, None)}"
    else:
        advice = f"With the newest {config.starts_from} run here:\n  {same_command(str(run))}"
    return BoneageError(
        f"{experiment} starts from the weights of {config.starts_from} and needs ckpt=.\n{advice}"
    )
