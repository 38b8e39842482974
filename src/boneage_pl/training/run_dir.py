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

# Options that may change when a run is resumed: locations and hardware.
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
        BoneAgeError: unreadable.
    """
    path = (run if record else run / ".hydra") / f"{name}.yaml"
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise BoneAgeError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # PyYAML's errors
        raise BoneAgeError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, DictConfig):
        raise BoneAgeError(f"{path} is not a run's configuration.")
    return config


def save_hydra_files(config: DictConfig, run: Path) -> None:
    """Write a run's `.hydra/` in Hydra's place."""
    folder = run / HYDRA_OVERRIDES.parent
    folder.mkdir(exist_ok=True)
    options = {key: value for key, value in to_plain(config, resolve=False).items() if key != "hydra"}
    hydra = OmegaConf.create({"hydra": HydraConfig.get()})
    for name, content in (("config", OmegaConf.create(options)), ("hydra", hydra)):
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(content), encoding="utf-8")
    (run / HYDRA_OVERRIDES).write_text(OmegaConf.to_yaml(HydraConfig.get().overrides.task), encoding="utf-8")


def diff_configs(one: Any, other: Any, at: str = "") -> list[str]:
    """Return the dotted keys in which two configurations differ, except resumable options."""
    if at in RESUMABLE_OPTIONS or at == "logger":  # loggers do not affect the training
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        missing = object()
        return [
            difference
            for key in keys
            for difference in diff_configs(
                one.get(key, missing), other.get(key, missing), f"{at}.{key}" if at else key
            )
        ]
    return [] if one == other else [at]


def has_run(run: Path) -> bool:
    """Whether a folder contains a run."""
    return (run / "metrics.csv").exists() or (run / "checkpoints").exists()


def check_run_dir(config: DictConfig, run: Path, *, of_sweep: bool = False) -> bool:
    """Return whether this command resumes the run in `run`, as when a cluster requeues it.

    Args:
        config: of the command.
        run: the folder.
        of_sweep: whether it is part of a sweep, where a finished run is allowed too.

    Raises:
        BoneAgeError: the folder contains another run, or a finished one.
    """
    if not has_run(run):
        return False
    has_checkpoint = (run / LAST).exists() or (run / PREVIOUS).exists()
    if has_checkpoint and (of_sweep or not (run / SUMMARY).exists()) and (run / HYDRA_OVERRIDES).exists():
        options = {k: v for k, v in to_plain(config, resolve=False).items() if k != "hydra"}
        if not (changed := diff_configs(to_plain(load_run_config(run, "config"), resolve=False), options)):
            return True
        content = f"another run, which differs in {', '.join(changed[:5])}"
    else:
        content = "a run"
    raise BoneAgeError(
        f"{run} contains {content} and is not overwritten.\n"
        "Choose another hydra.run.dir, or leave it out for a new folder. To resume that run:\n"
        f"  {resume_command(run)}"
    )


def to_plain(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    """Return a configuration as plain values."""
    return dict(OmegaConf.to_container(config, resolve=resolve))  # type: ignore[arg-type]


LOCK = ".lock"

_locked: dict[Path, FileLock] = {}
_created: list[Path] = []  # folders created by this process, parents first


def is_rank_zero() -> bool:
    """Whether this is the first process of its run, which alone writes and prints."""
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # as Lightning reads them
    rank = next((os.environ[name] for name in ranks if name in os.environ), "0")
    return rank == "0" and os.environ.get("NODE_RANK", "0") == "0"


def lock_run_dir(run: Path) -> Path:
    """Create and lock a run folder until this process ends, and return it.

    Raises:
        BoneAgeError: another process trains there, or the folder cannot be written.
    """
    if run.resolve() in _locked:
        return run
    lock = FileLock(run / LOCK)  # released by the system when the process ends
    with _translate_write_errors(run):
        _make_dir(run, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BoneAgeError(f"{run} is being trained by another process.") from None
    _locked[run.resolve()] = lock
    return run


def unique_dir(path: Path) -> Path:
    """Create and return a new folder: `path`, with a number appended if it exists.

    Raises:
        BoneAgeError: the folder cannot be created.
    """
    for number in count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}_{number}")
        with _translate_write_errors(folder):
            try:
                _make_dir(folder, exist_ok=False)
                return folder
            except FileExistsError:
                if not folder.is_dir():
                    raise
    raise AssertionError


def _make_dir(folder: Path, *, exist_ok: bool) -> None:
    missing = [f.absolute() for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=exist_ok)
    _created.extend(reversed(missing))


@contextmanager
def _translate_write_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BoneAgeError(
            f"{folder} cannot be written: {error.strerror}. Choose another hydra.run.dir."
        ) from error


def remove_empty_run_dir(run: Path) -> None:
    """Remove the folders that this process created for a rejected run."""
    if run.absolute() not in _created or not run.is_dir():
        return
    if {entry.name for entry in run.iterdir()} <= {".hydra", LOCK, "boneage_pl.log"}:
        shutil.rmtree(run, ignore_errors=True)
        for folder in reversed(_created):
            with suppress(OSError):  # not empty
                folder.rmdir()


@contextmanager
def run_dir_lock(run: Path) -> Iterator[None]:
    """Lock a run folder inside the block."""
    lock_run_dir(run)
    try:
        yield
    finally:
        _locked.pop(run.resolve()).release()


def is_running(run: Path) -> bool:
    """Whether a process is training in a run folder."""
    if not (run / LOCK).exists():
        return False
    lock = FileLock(run / LOCK)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # not writable
        return False
