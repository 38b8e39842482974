"""Process pool, file locks and signal handling in worker processes."""

import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from boneage_pl.errors import BoneAgeError

log = logging.getLogger(__name__)

MIN_TASKS = 100  # images: starting processes takes longer than reading or drawing these in this one
_CHUNK = 16  # tasks handed to a process at once, at most
# quota and period in µs, of cgroups 2 and 1
_CPU_QUOTAS = (
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)
MAIN_GUARD_MESSAGE = (
    "Its processes import the script that they are started from: what a script does must stand below\n"
    '  if __name__ == "__main__":'
)


def cores() -> int:
    """Return how many cores this process may use, by its affinity and its container's CPU quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in _CPU_QUOTAS:
        try:
            quota, period = " ".join(Path(file).read_text() for file in files).split()
            return max(1, min(count, math.ceil(int(quota) / int(period)) if int(quota) > 0 else count))
        except (OSError, ValueError):  # another version of cgroups, or "max"
            continue
    return count


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool that drops what it has not begun when its block is left, and dies with this process.

    Its processes are fresh, not forks, because the caller may already run threads. They leave Ctrl-C to the
    caller.

    Raises:
        BoneAgeError: one of them was killed, or this process is itself only being started.
    """
    check_main_guard()
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _init_worker)
    try:
        yield pool
    except BrokenProcessPool as error:
        script = sys.modules["__main__"].__spec__ is None  # not one of our commands
        raise BoneAgeError(
            f"One of the {workers} processes at work on the images was ended, as the system does when\n"
            "memory runs out. Take fewer with data.cache_workers=1, or +data.phantom.workers=1 where the\n"
            "phantom is drawn; what is already there is kept." + (f"\n{MAIN_GUARD_MESSAGE}" if script else "")
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


T = TypeVar("T")
R = TypeVar("R")


def parallel_map(do: Callable[[T], R], tasks: Sequence[T], workers: int, limit: int = 256) -> Iterator[R]:
    """Yield what `do` makes of each task, in their order; a few tasks are done in this process.

    Args:
        do: of a module, as a process imports it.
        tasks: that it is called with.
        workers: processes.
        limit: of the results that wait to be taken and the tasks that are under way.

    Raises:
        BoneAgeError: see `worker_pool`.
    """
    if workers == 1 or len(tasks) <= MIN_TASKS:
        yield from map(do, tasks)
        return
    size = max(1, min(_CHUNK, limit // workers))
    chunks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    with worker_pool(min(workers, len(chunks))) as pool:
        for results in bounded_map(pool, partial(_do_all, do), chunks, max(1, limit // size)):
            yield from results


def _do_all(do: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
    return [do(task) for task in tasks]


def bounded_map(pool: Executor, do: Callable[[T], R], tasks: Iterable[T], limit: int) -> Iterator[R]:
    """Yield results in order as `Executor.map` does, with no more than `limit` of them begun or waiting."""
    coming = iter(tasks)
    waiting = deque(pool.submit(do, task) for task in islice(coming, limit))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(do, task) for task in islice(coming, 1))
        yield result


def check_main_guard() -> None:
    """Raise `BoneAgeError` in a process that is being started and imports the script it was started from.

    It would do the script's work a second time, and wait for its own caller.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself checks
        raise BoneAgeError(f"The preparation was started within its own process.\n{MAIN_GUARD_MESSAGE}")


def ignore_signals(_: object = None) -> None:
    """Leave Ctrl-C, and a SIGTERM that is not the caller's own, to the caller; called in a worker process.

    A terminal sends the one, and systemd, docker and Slurm the other, to all processes of a command: workers
    that ended by it would be taken for crashed before the caller has stopped in good order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_signal, daemon=True).start()


def _exit_on_signal() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)  # PyTorch would complain of any other status while the caller ends


def _init_worker() -> None:
    ignore_signals()
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    # a caller that is killed sends its workers nothing, and they would wait for work for ever
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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
