"""Process pools, file locks and signals in worker processes."""

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

MIN_TASKS = 100  # images; with fewer, starting processes does not pay
_CHUNK = 16  # largest number of tasks per chunk
# quota and period in µs, in cgroups v2 and v1
_CPU_QUOTAS = (
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)
MAIN_GUARD_MESSAGE = (
    'Worker processes import the calling script, so its code must be guarded by\n  if __name__ == "__main__":'
)


def cores() -> int:
    """Return the number of cores available to this process, by affinity and container quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in _CPU_QUOTAS:
        try:
            quota, period = " ".join(Path(file).read_text() for file in files).split()
            return max(1, min(count, math.ceil(int(quota) / int(period)) if int(quota) > 0 else count))
        except (OSError, ValueError):  # another cgroups version, or "max"
            continue
    return count


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Open a process pool that cancels pending tasks on exit and ends with this process.

    Processes are spawned, not forked, because the caller may run threads. They ignore Ctrl-C.

    Raises:
        BoneAgeError: a worker was killed, or the calling script has no main guard.
    """
    check_main_guard()
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _init_worker)
    try:
        yield pool
    except BrokenProcessPool as error:
        script = sys.modules["__main__"].__spec__ is None  # not started with python -m
        raise BoneAgeError(
            f"One of {workers} worker processes was killed, probably because memory ran out. Use fewer with\n"
            "data.cache_workers=1, or +data.phantom.workers=1 for the phantom; existing files are kept."
            + (f"\n{MAIN_GUARD_MESSAGE}" if script else "")
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


T = TypeVar("T")
R = TypeVar("R")


def parallel_map(do: Callable[[T], R], tasks: Sequence[T], workers: int, limit: int = 256) -> Iterator[R]:
    """Yield `do(task)` for each task in order; few tasks are done in this process.

    Args:
        do: a picklable function.
        tasks: its arguments.
        workers: number of processes.
        limit: largest number of pending tasks and results.

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
    """Like `Executor.map`, with at most `limit` pending tasks and results."""
    iterator = iter(tasks)
    pending = deque(pool.submit(do, task) for task in islice(iterator, limit))
    while pending:
        result = pending.popleft().result()
        pending.extend(pool.submit(do, task) for task in islice(iterator, 1))
        yield result


def check_main_guard() -> None:
    """Raise `BoneAgeError` in a worker that imports a script without a main guard, which would deadlock."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as in multiprocessing
        raise BoneAgeError(f"The script has no main guard.\n{MAIN_GUARD_MESSAGE}")


def ignore_signals(_: object = None) -> None:
    """Ignore SIGINT, and SIGTERM unless sent by the caller; called in a worker process.

    Terminals, systemd, docker and Slurm signal all processes of a command: workers that exited would look
    crashed before the caller has shut down.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_signal, daemon=True).start()


def _exit_on_signal() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)  # another status would raise in PyTorch's loader


def _init_worker() -> None:
    ignore_signals()
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    # a killed caller would leave its workers waiting forever
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def file_lock(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file `path`, waiting for other processes; released when the process ends.

    Args:
        path: in an existing folder.
        doing: activity of the other process, for the log.

    Raises:
        OSError: the file cannot be created.
        BoneAgeError: see `check_main_guard`.
    """
    check_main_guard()
    path.open("ab").close()  # otherwise filelock would retry forever
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
