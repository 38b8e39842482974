"""Hydra callback that checks the configuration and the run folder before a run starts."""

import atexit
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from boneage_pl.cli.entrypoint import exit_on_error
from boneage_pl.cli.overrides import expand_home, next_command, same_command, to_grammar
from boneage_pl.errors import BoneAgeError
from boneage_pl.training.config_checks import check_launcher, check_options, check_sweep
from boneage_pl.training.run_dir import (
    check_run_dir,
    is_rank_zero,
    lock_run_dir,
    save_hydra_files,
    unique_dir,
)
from boneage_pl.training.runs import BEST, LAST, find_checkpoint, newest_run
from boneage_pl.training.sweep import summarize_sweep


def apply_fast_dev_run(config: DictConfig) -> None:
    """Apply `trainer.fast_dev_run`: one epoch of that many batches."""
    batches = int(config.trainer.fast_dev_run)
    limits = {"limit_train_batches": batches, "limit_val_batches": batches}
    config.trainer.update(max_epochs=1, check_val_every_n_epoch=1, **limits)


@contextmanager
def _exit_on_any_error() -> Iterator[None]:
    """Exit on every error, since Hydra turns exceptions in callbacks into warnings."""
    try:
        with exit_on_error():
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


@contextmanager
def _hydra_config(config: DictConfig) -> Iterator[None]:
    """Set Hydra's configuration early, for the run folder's name, and make it writable."""
    HydraConfig.instance().set_config(config)
    with read_write(config.hydra):
        yield


class Preflight(Callback):
    """Checks the composed configuration before anything is written into the run folder.

    An invalid configuration exits without changes. In a sweep, Hydra would write `.hydra/` before the check,
    so it is written here.
    """

    def __init__(self) -> None:
        self._sweep_before: tuple[Path, str | None] | None = None  # multirun.yaml and its previous content

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check a single run."""
        with _exit_on_any_error(), _hydra_config(config):
            expand_home(config)
            check_options(config)
            dated = "${now:" in OmegaConf.to_container(config.hydra.run, resolve=False)["dir"]  # type: ignore
            if config.trainer.get("fast_dev_run"):
                apply_fast_dev_run(config)
                config.hydra.run.dir = temporary_run_dir()
                dated = False
            run = Path(config.hydra.run.dir)
            if not dated and check_run_dir(config, run):
                config.hydra.output_subdir = None  # keep .hydra, which a kill could truncate
            else:
                find_warm_start(config)
            if is_rank_zero():  # before Hydra writes, in case another process trains there
                config.hydra.run.dir = str(lock_run_dir(unique_dir(run) if dated else run))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Check a sweep before its runs."""
        with _exit_on_any_error(), read_write(config.hydra):
            expand_home(config)
            check_sweep(config)
            check_launcher(config)
            if "${now:" in OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"]:  # type: ignore
                folder = unique_dir(Path(config.hydra.sweep.dir))
                config.hydra.sweep.dir = str(folder)
                config.hydra.overrides.hydra.append(to_grammar("hydra.sweep.dir", str(folder)))
            config.hydra.overrides.hydra.append("hydra.output_subdir=null")  # written by on_job_start
            file = Path(config.hydra.sweep.dir) / "multirun.yaml"
            self._sweep_before = file, file.read_text(encoding="utf-8") if file.exists() else None

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Check one run of a sweep."""
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
                summarize_sweep(Path(hydra.sweep.dir))  # for the finished runs
                raise
            if not resumes:
                save_hydra_files(config, run)

    def _restore(self, run: Path) -> None:
        """Undo Hydra's changes for a rejected run of a sweep: multirun.yaml and an empty folder."""
        if self._sweep_before is not None:
            file, content = self._sweep_before
            if content is not None:
                file.write_text(content, encoding="utf-8")
        with suppress(OSError):  # not empty
            run.rmdir()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the results of a sweep and write sweep.csv."""
        summarize_sweep(Path(config.hydra.sweep.dir))


def temporary_run_dir() -> str:
    """Create a folder that is removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="fast_dev_run_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def find_warm_start(config: DictConfig) -> Path | None:
    """Return the checkpoint to start from, or `None` for random weights.

    Raises:
        BoneAgeError: `ckpt=` matches nothing, or the experiment or optimizer requires it.
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
        raise BoneAgeError("optimizer.state=checkpoint requires ckpt=.")
    return None


def _missing_checkpoint_error(config: DictConfig) -> BoneAgeError:
    experiment = HydraConfig.get().runtime.choices["experiment"]
    run = newest_run(Path(config.output_dir), config.requires_ckpt_of)
    if run is None:
        advice = f"Train {config.requires_ckpt_of} first:\n  {next_command(config.requires_ckpt_of, None)}"
    else:
        advice = f"To use the newest {config.requires_ckpt_of} run:\n  {same_command(str(run))}"
    return BoneAgeError(
        f"{experiment} starts from the weights of {config.requires_ckpt_of} and requires ckpt=.\n{advice}"
    )
