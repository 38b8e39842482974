"""Worker processes for jobs that no library runs on all cores by itself."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from boneage_pl.errors import BoneageError

FEW = 64  # images: starting processes takes longer than reading or drawing these in this one
GUARD = (
    "Its processes import the script that they are started from: what a script does must stand below\n"
    '  if __name__ == "__main__":'
)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool that drops what it has not begun when its block is left, and dies with this process.

    Its processes are fresh, not forks, because the caller may already run threads. They leave Ctrl-C to the
    caller.

    Raises:
        BoneageError: one of them was killed, or this process is itself only being started.
    """
    refuse_while_starting()
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        yield pool
    except BrokenProcessPool as error:
        script = sys.modules["__main__"].__spec__ is None  # not one of our commands
        raise BoneageError(
            f"One of the {workers} processes at work on the images was ended, as the system does when\n"
            "memory runs out. Take fewer with data.prepare_workers=1, or +data.generate.workers=1 where the\n"
            "phantom is drawn; what is already there is kept." + (f"\n{GUARD}" if script else "")
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


T = TypeVar("T")
R = TypeVar("R")


def in_processes(do: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    """Yield what `do` makes of each task, in their order; a few tasks are done in this process.

    Raises:
        BoneageError: see `worker_pool`.
    """
    if workers == 1 or len(tasks) <= FEW:
        yield from map(do, tasks)
        return
    with worker_pool(min(workers, len(tasks))) as pool:
        yield from pool.map(do, tasks, chunksize=4)


def refuse_while_starting() -> None:
    """Raise `BoneageError` in a process that is being started and imports the script it was started from.

    It would do the script's work a second time, and wait for its own caller.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself asks
        raise BoneageError(f"The preparation was started within its own process.\n{GUARD}")


def leave_signals(_: object = None) -> None:
    """Leave Ctrl-C, and a SIGTERM that is not the caller's own, to the caller; called in a worker process.

    A terminal sends the one, and systemd, docker and Slurm the other, to all processes of a command: workers
    that ended by it would be taken for crashed before the caller has stopped in good order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)  # PyTorch would complain of any other status while the caller ends


def _begin() -> None:
    leave_signals()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # a caller that is killed tells its workers nothing, and they would wait for work for ever
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
