"""One process at a time. Imports no torch."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from boneage_pl.machine.pool import refuse_while_starting

log = logging.getLogger(__name__)


@contextmanager
def one_at_a_time(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file `path`, waiting for a process that holds it; it ends with the process that does.

    Args:
        path: in a folder that is there.
        doing: what the other process is at, for the line that says that this one waits.

    Raises:
        OSError: the file cannot be made.
        BoneageError: see `refuse_while_starting`.
    """
    refuse_while_starting()
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
