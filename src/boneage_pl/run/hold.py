"""Who is at work in a run's folder, and what was made for a run that did not begin. Imports no torch."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from boneage_pl.errors import BoneageError

LOCK = ".lock"

_held: dict[Path, FileLock] = {}
_made: dict[Path, list[Path]] = {}  # the folders that this process has made for a run, the innermost first


def first_process() -> bool:
    """Whether this process speaks and decides for its run: of a distributed one only the first does."""
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # as Lightning reads them
    rank = next((os.environ[name] for name in ranks if name in os.environ), "0")
    return rank == "0" and os.environ.get("NODE_RANK", "0") == "0"


def hold(run: Path) -> Path:
    """Keep every other training out of a run's folder, which is made, until this process ends; return it.

    Raises:
        BoneageError: one is at work there, or the folder cannot be written.
    """
    if run.resolve() in _held:
        return run
    lock = FileLock(run / LOCK)  # the system's own: it ends with the process that holds it
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise BoneageError(f"{run} is being trained by another process.") from None
    except OSError as error:
        raise BoneageError(
            f"{run} cannot be written: {error.strerror}. Choose another hydra.run.dir."
        ) from error
    _held[run.resolve()] = lock
    _made[run.resolve()] = [folder.absolute() for folder in made]
    return run


def hold_new(run: Path) -> Path:
    """Do the same with a folder that nobody has: `run`, or where that is taken its name with a number.

    Raises:
        BoneageError: it cannot be written.
    """
    made = [folder.absolute() for folder in run.parents if not folder.exists()]
    folder = new_folder(run)
    hold(folder)
    _made[folder.resolve()] = [folder.absolute(), *made]
    return folder


def new_folder(wanted: Path) -> Path:
    """Make and return a folder that was not there: of commands in one second each has one of its own.

    Raises:
        BoneageError: it cannot be written.
    """
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise BoneageError(f"{folder} is in the way: it is no folder.") from None
        except OSError as error:
            raise BoneageError(
                f"{folder} cannot be written: {error.strerror}. Choose another hydra.run.dir."
            ) from error
    raise AssertionError


def remove_if_nothing_was_made(run: Path) -> None:
    """Remove what this process has made for a run that it then refused, and nothing that was there before."""
    made = _made.get(run.resolve(), [])
    if run.absolute() not in made or not run.is_dir():
        return
    if {entry.name for entry in run.iterdir()} <= {".hydra", LOCK, "boneage_pl.log"}:
        shutil.rmtree(run, ignore_errors=True)
        for folder in made[1:]:
            with suppress(OSError):  # other runs are in it
                folder.rmdir()


@contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Hold a run's folder for the block."""
    hold(run)
    try:
        yield
    finally:
        _held.pop(run.resolve()).release()


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
