"""Make a store of prepared images, or bring one up to date with its source."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pandas as pd
from filelock import FileLock, Timeout

from boneage_pl.data.images import BadImageError, check_content, decode_image, fit, read_file
from boneage_pl.data.part import Part, Row
from boneage_pl.data.store import UNOPENED, ImageStore, Manifest, Source, read_manifest
from boneage_pl.errors import BoneageError
from boneage_pl.pool import cores, worker_pool
from boneage_pl.progress import progress

log = logging.getLogger(__name__)

FEW = 64  # images: starting processes takes longer than preparing these in this one


def prepare_images(
    table: pd.DataFrame,
    root: Path,
    folder: Path,
    image_size: int,
    workers: int | None = None,
    *,
    verify: bool = False,
) -> ImageStore:
    """Return the store of every image in `table`, made or brought up to date first.

    An image is done again if its path, size or time on disk differ from what the store was made from and its
    content does too; the others are copied. Interrupted, the next call continues. Of several processes that
    call at once one does the work, and the others wait for it.

    Args:
        table: columns `id` and `path`; `path` lies below `root`.
        root: the folder that sources are named from, so that a store may move with its data.
        folder: where the store lies; made if it is missing.
        image_size: side of the images in pixels.
        workers: processes that decode; `None` for one a core.
        verify: read the whole store and do it again if it is damaged.

    Raises:
        BoneageError: the folder cannot be written, its disk is full, or a worker process was killed.
    """
    wanted = {i: os.path.relpath(p, root) for i, p in zip(table["id"], table["path"], strict=True)}
    wanted = dict(sorted(wanted.items()))
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        manifest = read_manifest(folder, image_size)
        if manifest is None or verify or not is_current(manifest, wanted, root):
            with _lock(folder / f".{image_size}.lock"):
                manifest = read_manifest(folder, image_size)  # another process may have been here
                if manifest and verify and not ImageStore(folder, image_size).is_whole():
                    log.warning("%s is damaged and is made anew", folder / manifest.file)
                    manifest = None
                if manifest is None or not is_current(manifest, wanted, root):
                    _make(wanted, root, folder, image_size, workers or cores(), manifest)
    except OSError as error:
        raise BoneageError(
            f"The prepared images cannot be written to {folder}: {error.strerror or error}.\n"
            "Name another folder with data.store=<folder>; what is already prepared is kept, and the same\n"
            "command continues. data.prepare=false trains from the original files, more slowly."
        ) from error
    return ImageStore(folder, image_size)


def is_current(manifest: Manifest, wanted: dict[str, str], root: Path) -> bool:
    """Whether a store holds exactly the `wanted` images (id → path below `root`), judged by size and time."""
    sources = manifest.sources
    return set(sources) == set(wanted) and all(sources[i].looks_like(root, wanted[i]) for i in wanted)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = FileLock(path)  # the system's own: it ends with the process that holds it
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that prepares %s", path.parent)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(
    wanted: dict[str, str], root: Path, folder: Path, size: int, workers: int, old: Manifest | None
) -> None:
    with Part(folder, size) as part:
        done = part.keep(wanted, root)
        if done:
            log.info("continuing: %d of %d images are already prepared in %s", done, len(wanted), folder)
        rest = dict(list(wanted.items())[done:])
        rows = _rows(rest, root, folder, size, workers, old)
        for row in progress(rows, len(wanted), f"preparing {folder} at {size} px", done=done):
            part.append(row)
        part.finish()


def _rows(
    wanted: dict[str, str], root: Path, folder: Path, size: int, workers: int, old: Manifest | None
) -> Iterator[Row]:
    """Yield every wanted image, in order: copied from the `old` store where its source is what it was."""
    store = ImageStore(folder, size) if old else None
    known = old.images if old else {}
    tasks = [
        (i, path, root, size, known[i].sha256 if i in known else "")
        for i, path in wanted.items()
        if i not in known or not known[i].looks_like(root, path)
    ]
    made = _in_processes(_prepare, tasks, workers)
    anew = {task[0] for task in tasks}
    for i in wanted:
        row = next(made) if i in anew else Row(i, known[i], b"", "")
        if store and not row.pixels and not row.why:
            row.pixels = store.read([i]).tobytes()
        yield row


T = TypeVar("T")
R = TypeVar("R")

Task = tuple[str, str, Path, int, str]  # id, path, root, size, the content that the old store has


def _in_processes(do: Callable[[T], R], tasks: list[T], workers: int) -> Iterator[R]:
    if workers == 1 or len(tasks) <= FEW:
        yield from map(do, tasks)
        return
    try:
        with worker_pool(min(workers, len(tasks))) as pool:
            yield from pool.map(do, tasks, chunksize=4)
    except BrokenProcessPool as error:
        raise BoneageError(
            f"One of the {workers} processes that read images was killed, as the system does when memory\n"
            "runs out. Take fewer with data.prepare_workers=1; what is already prepared is kept."
        ) from error


def _prepare(task: Task) -> Row:
    """Read one image; without pixels where the content is what the old store has already."""
    i, path, root, size, known = task
    source = Source(path, UNOPENED, 0, "")
    try:
        found = (root / path).stat()
        if os.access(root / path, os.R_OK):
            source = Source(path, found.st_size, found.st_mtime_ns, "")
        content = read_file(root / path)
        source = Source(path, found.st_size, found.st_mtime_ns, hashlib.sha256(content).hexdigest())
        if source.sha256 == known:
            return Row(i, source, b"", "")
        image = decode_image(content, root / path)
        check_content(image, root / path)
        return Row(i, source, fit(image, size).tobytes(), "")
    except OSError as error:
        return Row(i, source, b"", f"unreadable ({error.strerror})")
    except BadImageError as error:
        return Row(i, source, b"", error.kind)


def check_originals(
    paths: dict[str, str], workers: int | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Read every image once, for what is to be read from its file again and again.

    Args:
        paths: the files by id.
        workers: processes that decode; `None` for one a core.

    Returns:
        The SHA-256 of each file's bytes by id, and what those are instead that cannot be used, by id.
    """
    checked = _in_processes(_check, list(paths.items()), workers or cores())
    results = list(progress(checked, len(paths), "checking the original images"))
    return {i: sha256 for i, sha256, _ in results}, {i: why for i, _, why in results if why}


def _check(task: tuple[str, str]) -> tuple[str, str, str]:
    i, path = task
    try:
        content = read_file(path)
        check_content(decode_image(content, path), path)
    except BadImageError as error:
        return i, "", error.kind
    return i, hashlib.sha256(content).hexdigest(), ""
