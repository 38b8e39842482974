"""Who is at work in a run's folder, and what was made for a run that did not begin. Imports no torch."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from boneage_pl.errors import BoneAgeError

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
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # not ours to write
        return False
    lock.release()
    return False
