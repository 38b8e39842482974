"""One process at a time. Imports no torch."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from boneage_pl.machine.pool import check_main_guard

log = logging.getLogger(__name__)


@contextmanager
def file_lock(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file `path`, waiting for a process that holds it; it ends with the process that does.

    Args:
        path: in a folder that is there.
        doing: what the other process is at, for the line that says that this one waits.

    Raises:
        OSError: the file cannot be made.
        BoneAgeError: see `check_main_guard`.
    """
    check_main_guard()
    path.open("ab").close()  # where it cannot be, filelock tries for ever
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that %s", doing)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
