"""Where loader processes leave their batches, and what is done where it is small, as in a container."""

import logging
import shutil
import sys
from pathlib import Path

from torch.utils.data import get_worker_info

from boneage_pl.data.batch import Batch
from boneage_pl.errors import BoneAgeError

log = logging.getLogger(__name__)

SHM = Path("/dev/shm")
DEFAULT_PREFETCH = 2  # PyTorch's batches that each loader process has ready
MAX_SHM_FRACTION = (
    3  # batches that the training process holds: this one, the next, and one that is being page-locked
)
SHM_ADVICE = "docker and podman give more with --shm-size=1g (64 MiB is what a container has)"


def free_space() -> int | None:
    """Return the bytes that are free for batches; `None` where they are not kept in `/dev/shm`."""
    if sys.platform != "linux":
        return None
    try:
        return shutil.disk_usage(SHM).free
    except OSError:
        return 0


def limit_workers_by_shm(workers: int, prefetch: int, batch_bytes: int, processes: int = 1) -> int:
    """Return how many of `workers` loader processes have room for all their batches at once; say if not all.

    Both sides of a split count: where only a part of the batches is used, the rest waits while the other
    side is read.

    Args:
        workers: loader processes of each side.
        prefetch: batches that each of them has ready.
        batch_bytes: of one batch.
        processes: training processes of this machine, which share what is free.
    """
    free = free_space()
    if free is None:
        return workers
    fitting = max(0, min(workers, (free // processes // batch_bytes - MAX_SHM_FRACTION) // (2 * prefetch)))
    if fitting < workers:
        log.warning(
            "%d of %d loader processes: no room for the batches of more, with %d MiB free in %s;\n%s",
            fitting,
            workers,
            free >> 20,
            SHM,
            SHM_ADVICE,
        )
    return fitting


def to_shared_memory(batch: Batch) -> Batch:
    """Move a batch into shared memory in a loader process; elsewhere it stays where it is.

    PyTorch would do so itself, in a thread whose failure nobody hears of: training would wait for ever.

    Raises:
        BoneAgeError: it is full.
    """
    if get_worker_info() is None:
        return batch
    try:
        for tensor in batch.values():
            tensor.share_memory_()  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise BoneAgeError(
            f"There is no room for the loader processes' batches in {SHM}.\n"
            f"Take fewer with data.workers=1, or none with data.workers=0;\n{SHM_ADVICE}."
        ) from error
    return batch
