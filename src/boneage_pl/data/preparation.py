"""Make a store of prepared images, or bring one up to date with its source."""

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd

from boneage_pl.data.depth import bits, levels
from boneage_pl.data.frame import Frame
from boneage_pl.data.images import (
    BadImageError,
    is_wide,
    prepared_pixels,
    read_depth,
    read_file,
)
from boneage_pl.data.part import Part, Row
from boneage_pl.data.store import UNOPENED, ImageStore, Manifest, Source, read_manifest
from boneage_pl.errors import BoneageError
from boneage_pl.machine.locks import one_at_a_time
from boneage_pl.machine.pool import cores, in_processes
from boneage_pl.machine.progress import progress

log = logging.getLogger(__name__)


def prepare_images(
    table: pd.DataFrame,
    root: Path,
    folder: Path,
    frame: Frame,
    workers: int | None = None,
    *,
    verify: bool = False,
) -> ImageStore:
    """Return the store of every image in `table`, made or brought up to date first.

    An image is done again if its path, size or time on disk differ from what the store was made from and its
    content does too, or if the 16-bit images are now read as another number of bits; the others are copied.
    Interrupted, the next call continues. Of several processes that call at once one does the work, and the
    others wait for it.

    Args:
        table: columns `id` and `path`; `path` lies below `root`.
        root: the folder that sources are named from, so that a store may move with its data.
        folder: where the store lies; made if it is missing.
        frame: the square that the images are brought into.
        workers: processes that decode; `None` for one a core.
        verify: read the whole store and every original, and do again what is damaged or has another content
            under the same size and time.

    Raises:
        BoneageError: the folder cannot be written, its disk is full, or a worker process was killed.
    """
    wanted = dict(sorted(below(root, table).items()))
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        manifest = read_manifest(folder, frame)
        if manifest is None or verify or not is_current(manifest, wanted, root):
            with one_at_a_time(folder / f".{frame}.lock", f"prepares {folder}"):
                manifest = read_manifest(folder, frame)  # another process may have been here
                if manifest and verify:
                    manifest = _verified(manifest, wanted, root, folder, workers or cores())
                if manifest is None or not is_current(manifest, wanted, root):
                    _make(wanted, root, folder, frame, workers or cores(), manifest)
                    manifest = None
    except OSError as error:
        raise BoneageError(
            f"The prepared images cannot be written to {folder}: {error.strerror or error}.\n"
            "Name another folder with data.store=<folder>; what is already prepared is kept, and the same\n"
            "command continues. data.prepare=false trains from the original files, more slowly."
        ) from error
    return ImageStore(folder, frame, manifest)


def below(root: Path, table: pd.DataFrame) -> dict[str, str]:
    """Return the paths of a table's images as seen from `root`, by id."""
    start = f"{root}{os.sep}"  # os.path.relpath costs more than reading a file's size and time
    return {
        i: path[len(start) :] if path.startswith(start) else os.path.relpath(path, root)
        for i, path in zip(table["id"].tolist(), table["path"].tolist(), strict=True)
    }


def is_current(manifest: Manifest, wanted: dict[str, str], root: Path) -> bool:
    """Whether a store holds exactly the `wanted` images (id → path below `root`), judged by size and time."""
    sources = manifest.sources
    return set(sources) == set(wanted) and all(sources[i].looks_like(root, wanted[i]) for i in wanted)


def _verified(
    manifest: Manifest, wanted: dict[str, str], root: Path, folder: Path, workers: int
) -> Manifest | None:
    """Return what of a store is what was made from the files that are there now; `None` if it is damaged."""
    if not ImageStore(folder, manifest.frame).is_whole():
        log.warning("%s is damaged and is made anew", folder / manifest.file)
        return None
    start = time.perf_counter()
    sources = manifest.sources
    alike = [
        i
        for i, path in wanted.items()
        if i in sources and sources[i].sha256 and sources[i].looks_like(root, path)
    ]
    with ThreadPoolExecutor(workers) as threads:  # hashing leaves Python to the others
        hashes = threads.map(_hash, [root / sources[i].path for i in alike])
        changed = {i for i, found in zip(alike, hashes, strict=True) if found != sources[i].sha256}
    log.info(
        "%d original files hashed, %.1f MB in %.1f s: %s",
        len(alike),
        sum(sources[i].bytes for i in alike) / 1e6,
        time.perf_counter() - start,
        f"{len(changed)} have another content than before" if changed else "none has changed",
    )
    return replace(
        manifest,
        images={i: source for i, source in manifest.images.items() if i not in changed},
        unreadable={i: found for i, found in manifest.unreadable.items() if i not in changed},
    )


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _make(
    wanted: dict[str, str], root: Path, folder: Path, frame: Frame, workers: int, old: Manifest | None
) -> None:
    depths = measure_depths(wanted, root, workers, old.sources if old else {})
    known = levels(depths.values())
    with Part(folder, frame, known) as part:
        done = part.keep(wanted, root)
        if done:
            log.info("continuing: %d of %d images are already prepared in %s", done, len(wanted), folder)
        rest = dict(list(wanted.items())[done:])
        rows = _rows(rest, root, folder, frame, workers, old, depths, known)
        for row in progress(rows, len(wanted), f"preparing {folder} at {frame.side} px", done=done):
            part.append(row)
        part.finish()


def measure_depths(
    wanted: dict[str, str], root: Path, workers: int, known: dict[str, Source]
) -> dict[str, int]:
    """Return the depth of each image (see `read_depth`), by id; of files that look as `known` from there."""
    depths = {
        i: known[i].depth if i in known and known[i].looks_like(root, path) else -1
        for i, path in wanted.items()
    }
    wide = {i: root / wanted[i] for i, depth in depths.items() if depth < 0 and is_wide(root / wanted[i])}
    found = in_processes(read_depth, list(wide.values()), workers)
    measured = progress(found, len(wide), "measuring 16-bit images") if wide else []
    return {i: max(depth, 0) for i, depth in depths.items()} | dict(zip(wide, measured, strict=True))


def _rows(
    wanted: dict[str, str],
    root: Path,
    folder: Path,
    frame: Frame,
    workers: int,
    old: Manifest | None,
    depths: dict[str, int],
    now: list[int],
) -> Iterator[Row]:
    """Yield every wanted image, in order: copied from the `old` store where it would come out the same.

    Args:
        depths: of each image.
        now: the levels that they are read as.
    """
    store = ImageStore(folder, frame) if old else None
    known = {
        i: source
        for i, source in (old.images if old else {}).items()
        if i in wanted and bits(source.depth, old.levels if old else []) == bits(depths[i], now)
    }
    tasks = [
        (i, path, root, frame, depths[i], bits(depths[i], now), known[i].sha256 if i in known else "")
        for i, path in wanted.items()
        if i not in known or not known[i].looks_like(root, path)
    ]
    made = in_processes(_prepare, tasks, workers)
    anew = {task[0] for task in tasks}
    for i in wanted:
        row = next(made) if i in anew else Row(i, known[i], b"", "")
        if store and not row.pixels and not row.why:
            row.pixels = store.read([i]).tobytes()
            row.source = replace(row.source, content=known[i].content)
        yield row


# id, path, root, square, depth, the bits it is read as, the content that the old store has
Task = tuple[str, str, Path, Frame, int, int, str]


def _prepare(task: Task) -> Row:
    """Read one image; without pixels where the content is what the old store has already."""
    i, path, root, frame, depth, used, known = task
    source = Source(path, UNOPENED, 0, "")
    try:
        found = (root / path).stat()
        content = read_file(root / path)
        source = Source(path, found.st_size, found.st_mtime_ns, hashlib.sha256(content).hexdigest(), depth)
        if source.sha256 == known:
            return Row(i, source, b"", "")
        pixels = prepared_pixels(content, root / path, frame, used)
        return Row(i, replace(source, content=hashlib.sha256(pixels).hexdigest()), pixels, "")
    except OSError as error:
        return Row(i, source, b"", f"unreadable ({error.strerror})")
    except BadImageError as error:
        return Row(i, source, b"", error.kind)
