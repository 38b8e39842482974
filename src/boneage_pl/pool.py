"""Worker processes for jobs that no library runs on all cores by itself."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool that drops what it has not begun when its block is left, and dies with this process.

    Its processes are fresh, not forks, because the caller may already run threads. They leave Ctrl-C to the
    caller.
    """
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


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
    os._exit(128 + signal.SIGTERM)


def _begin() -> None:
    leave_signals()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # a caller that is killed tells its workers nothing, and they would wait for work for ever
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
