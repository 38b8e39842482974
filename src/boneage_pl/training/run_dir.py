"""The folder of a run: lock, stored configuration, differences."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from boneage_pl.cli.overrides import resume_command
from boneage_pl.errors import BoneAgeError
from boneage_pl.training.runs import HYDRA_OVERRIDES, LAST, PREVIOUS, SUMMARY

# What may differ when a run goes on: where things are, and what they are computed with.
RESUMABLE_OPTIONS = (
    "trainer.max_epochs",
    "compile",
    "model.allow_download",
    "data.root",
    "data.cache_dir",
    "data.cache",
    "data.cache_workers",
    "data.num_workers",
    "data.on_device",
    "data.prefetch_factor",
    "data.pin_memory",
    "data.persistent_workers",
    "output_dir",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "trainer.num_nodes",
)


def load_run_config(run: Path, name: str, *, record: bool = False) -> DictConfig:
    """Return a run's `.hydra/<name>.yaml`, or a record's `<name>.yaml`.

    Raises:
        BoneAgeError: it cannot be read.
    """
    path = (run if record else run / ".hydra") / f"{name}.yaml"
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise BoneAgeError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # PyYAML's errors have no common type that OmegaConf promises
        raise BoneAgeError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, DictConfig):
        raise BoneAgeError(f"{path} is not a run's configuration.")
    return config


def save_hydra_files(config: DictConfig, run: Path) -> None:
    """Write a run's `.hydra/`, as Hydra would have before the run's folder was checked."""
    folder = run / HYDRA_OVERRIDES.parent
    folder.mkdir(exist_ok=True)
    own = {key: value for key, value in to_plain(config, resolve=False).items() if key != "hydra"}
    hydra = OmegaConf.create({"hydra": HydraConfig.get()})
    for name, content in (("config", OmegaConf.create(own)), ("hydra", hydra)):
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(content), encoding="utf-8")
    (run / HYDRA_OVERRIDES).write_text(OmegaConf.to_yaml(HydraConfig.get().overrides.task), encoding="utf-8")


def diff_configs(one: Any, other: Any, at: str = "") -> list[str]:
    """Return the dotted keys that two plain configurations differ in, but for what may change."""
    if at in RESUMABLE_OPTIONS or at == "logger":  # which changes nothing of what is trained
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        missing = object()
        return [
            found
            for key in keys
            for found in diff_configs(
                one.get(key, missing), other.get(key, missing), f"{at}.{key}" if at else key
            )
        ]
    return [] if one == other else [at]


def has_run(run: Path) -> bool:
    """Whether something was trained in this folder."""
    return (run / "metrics.csv").exists() or (run / "checkpoints").exists()


def check_run_dir(config: DictConfig, run: Path, *, of_sweep: bool = False) -> bool:
    """Return whether this command continues what `run` holds: the same one again, as a cluster requeues it.

    Args:
        config: of the command.
        run: the folder.
        of_sweep: whether it is one of several; then it may have ended, and only its report is made again.

    Raises:
        BoneAgeError: the folder holds another run, or a finished one.
    """
    if not has_run(run):
        return False
    again = (run / LAST).exists() or (run / PREVIOUS).exists()
    if again and (of_sweep or not (run / SUMMARY).exists()) and (run / HYDRA_OVERRIDES).exists():
        ours = {k: v for k, v in to_plain(config, resolve=False).items() if k != "hydra"}
        if not (changed := diff_configs(to_plain(load_run_config(run, "config"), resolve=False), ours)):
            return True
        why = f"another run, which differs in {', '.join(changed[:5])}"
    else:
        why = "a run"
    raise BoneAgeError(
        f"{run} already holds {why}, and nothing in it is overwritten.\n"
        "Choose another hydra.run.dir, or leave it out for a new folder by date and time. To continue that:\n"
        f"  {resume_command(run)}"
    )


def to_plain(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    """Return a configuration as plain values."""
    return dict(OmegaConf.to_container(config, resolve=resolve))  # type: ignore[arg-type]


LOCK = ".lock"

_locked: dict[Path, FileLock] = {}
_created: dict[Path, list[Path]] = {}  # the folders that this process has made for a run, the innermost first


def is_rank_zero() -> bool:
    """Whether this process speaks and decides for its run: of a distributed one only the first does."""
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # as Lightning reads them
    rank = next((os.environ[name] for name in ranks if name in os.environ), "0")
    return rank == "0" and os.environ.get("NODE_RANK", "0") == "0"


def lock_run_dir(run: Path) -> Path:
    """Keep every other training out of a run's folder, which is made, until this process ends; return it.

    Raises:
        BoneAgeError: one is at work there, or the folder cannot be written.
    """
    if run.resolve() in _locked:
        return run
    lock = FileLock(run / LOCK)  # the system's own: it ends with the process that holds it
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise BoneAgeError(f"{run} is being trained by another process.") from None
    except OSError as error:
        raise BoneAgeError(
            f"{run} cannot be written: {error.strerror}. Choose another hydra.run.dir."
        ) from error
    _locked[run.resolve()] = lock
    _created[run.resolve()] = [folder.absolute() for folder in made]
    return run


def create_run_dir(run: Path) -> Path:
    """Do the same with a folder that nobody has: `run`, or where that is taken its name with a number.

    Raises:
        BoneAgeError: it cannot be written.
    """
    made = [folder.absolute() for folder in run.parents if not folder.exists()]
    folder = unique_dir(run)
    lock_run_dir(folder)
    _created[folder.resolve()] = [folder.absolute(), *made]
    return folder


def unique_dir(wanted: Path) -> Path:
    """Make and return a folder that was not there: of commands in one second each has one of its own.

    Raises:
        BoneAgeError: it cannot be written.
    """
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise BoneAgeError(f"{folder} is in the way: it is no folder.") from None
        except OSError as error:
            raise BoneAgeError(
                f"{folder} cannot be written: {error.strerror}. Choose another hydra.run.dir."
            ) from error
    raise AssertionError


def remove_empty_run_dir(run: Path) -> None:
    """Remove what this process has made for a run that it then refused, and nothing that was there before."""
    made = _created.get(run.resolve(), [])
    if run.absolute() not in made or not run.is_dir():
        return
    if {entry.name for entry in run.iterdir()} <= {".hydra", LOCK, "boneage_pl.log"}:
        shutil.rmtree(run, ignore_errors=True)
        for folder in made[1:]:
            with suppress(OSError):  # other runs are in it
                folder.rmdir()


@contextmanager
def run_dir_lock(run: Path) -> Iterator[None]:
    """Hold a run's folder for the block."""
    lock_run_dir(run)
    try:
        yield
    finally:
        _locked.pop(run.resolve()).release()


def is_running(run: Path) -> bool:
    """Whether a process is at work in a run's folder."""
    if not (run / LOCK).exists():
        return False
    lock = FileLock(run / LOCK)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # not ours to write
        return False
