"""Build the image cache, and open a data set through it."""

import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from boneage_pl.data.cache.store import (
    UNREADABLE,
    CacheEntry,
    CacheManifest,
    ImageCache,
    PartialCache,
    SourceFile,
    read_manifest,
)
from boneage_pl.data.images.bit_depth import dataset_bit_depths, effective_bits
from boneage_pl.data.images.decode import (
    BadImageError,
    decode_and_resize,
    is_16bit_gray,
    read_bit_depth,
    read_file,
)
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.tables.load import load_table
from boneage_pl.data.tables.spec import DatasetSpec
from boneage_pl.data.tables.validate import DataIssues
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.processes import cores, file_lock, parallel_map
from boneage_pl.utils.progress import progress

log = logging.getLogger(__name__)


def build_cache(
    table: pd.DataFrame,
    root: Path,
    folder: Path,
    frame: ResizeSpec,
    workers: int | None = None,
    *,
    verify: bool = False,
) -> ImageCache:
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
        BoneAgeError: the folder cannot be written, its disk is full, or a worker process was killed.
    """
    wanted = dict(sorted(relative_paths(root, table).items()))
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        manifest = read_manifest(folder, frame)
        if manifest is None or verify or not is_current(manifest, wanted, root):
            with file_lock(folder / f".{frame}.lock", f"prepares {folder}"):
                manifest = read_manifest(folder, frame)  # another process may have been here
                if manifest and verify:
                    manifest = _verify(manifest, wanted, root, folder, workers or cores())
                if manifest is None or not is_current(manifest, wanted, root):
                    _build(wanted, root, folder, frame, workers or cores(), manifest)
                    manifest = None
    except OSError as error:
        raise BoneAgeError(
            f"The prepared images cannot be written to {folder}: {error.strerror or error}.\n"
            "Name another folder with data.cache_dir=<folder>; what is already cached is kept, and the same\n"
            "command continues. data.cache=false trains from the original files, more slowly."
        ) from error
    return ImageCache(folder, frame, manifest)


def relative_paths(root: Path, table: pd.DataFrame) -> dict[str, str]:
    """Return the paths of a table's images as seen from `root`, by id."""
    start = f"{root}{os.sep}"  # os.path.relpath costs more than reading a file's size and time
    return {
        i: path[len(start) :] if path.startswith(start) else os.path.relpath(path, root)
        for i, path in zip(table["id"].tolist(), table["path"].tolist(), strict=True)
    }


def is_current(manifest: CacheManifest, wanted: dict[str, str], root: Path) -> bool:
    """Whether a store holds exactly the `wanted` images (id → path below `root`), judged by size and time."""
    sources = manifest.sources
    return set(sources) == set(wanted) and all(sources[i].is_unchanged(root, wanted[i]) for i in wanted)


def _verify(
    manifest: CacheManifest, wanted: dict[str, str], root: Path, folder: Path, workers: int
) -> CacheManifest | None:
    """Return what of a store is what was made from the files that are there now; `None` if it is damaged."""
    if not ImageCache(folder, manifest.resize_spec).verify_checksum():
        log.warning("%s is damaged and is made anew", folder / manifest.file)
        return None
    start = time.perf_counter()
    sources = manifest.sources
    alike = [
        i
        for i, path in wanted.items()
        if i in sources and sources[i].sha256 and sources[i].is_unchanged(root, path)
    ]
    with ThreadPoolExecutor(workers) as threads:  # hashing leaves Python to the others
        hashes = threads.map(_sha256, [root / sources[i].path for i in alike])
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


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _build(
    wanted: dict[str, str],
    root: Path,
    folder: Path,
    frame: ResizeSpec,
    workers: int,
    old: CacheManifest | None,
) -> None:
    depths = measure_bit_depths(wanted, root, workers, old.sources if old else {})
    known = dataset_bit_depths(depths.values())
    with PartialCache(folder, frame, known) as part:
        done = part.resume(wanted, root)
        if done:
            log.info("continuing: %d of %d images are already prepared in %s", done, len(wanted), folder)
        rest = dict(list(wanted.items())[done:])
        rows = _decode_rows(rest, root, folder, frame, workers, old, depths, known)
        for row in progress(rows, len(wanted), f"preparing {folder} at {frame.size} px", done=done):
            part.append(row)
        part.finish()


def measure_bit_depths(
    wanted: dict[str, str], root: Path, workers: int, known: dict[str, SourceFile]
) -> dict[str, int]:
    """Return each image's depth by id (see `read_bit_depth`); of files that look as `known` from there."""
    depths = {
        i: known[i].depth if i in known and known[i].is_unchanged(root, path) else -1
        for i, path in wanted.items()
    }
    wide = {
        i: root / wanted[i] for i, depth in depths.items() if depth < 0 and is_16bit_gray(root / wanted[i])
    }
    measured: Iterable[int] = parallel_map(read_bit_depth, list(wide.values()), workers)
    measured = progress(measured, len(wide), "measuring 16-bit images") if wide else []
    return {i: max(depth, 0) for i, depth in depths.items()} | dict(zip(wide, measured, strict=True))


def _decode_rows(
    wanted: dict[str, str],
    root: Path,
    folder: Path,
    frame: ResizeSpec,
    workers: int,
    old: CacheManifest | None,
    depths: dict[str, int],
    now: list[int],
) -> Iterator[CacheEntry]:
    """Yield every wanted image, in order: copied from the `old` store where it would come out the same.

    Args:
        depths: of each image.
        now: the levels that they are read as.
    """
    store = ImageCache(folder, frame) if old else None
    known = {
        i: source
        for i, source in (old.images if old else {}).items()
        if i in wanted
        and effective_bits(source.depth, old.bit_depths if old else []) == effective_bits(depths[i], now)
    }
    tasks = [
        (
            i,
            path,
            root,
            frame,
            depths[i],
            effective_bits(depths[i], now),
            known[i].sha256 if i in known else "",
        )
        for i, path in wanted.items()
        if i not in known or not known[i].is_unchanged(root, path)
    ]
    made = parallel_map(_decode_row, tasks, workers)
    anew = {task[0] for task in tasks}
    for i in wanted:
        row = next(made) if i in anew else CacheEntry(i, known[i], b"", "")
        if store and not row.pixels and not row.error:
            row.pixels = store.read([i]).tobytes()
            row.source = replace(row.source, content=known[i].content)
        yield row


# id, path, root, square, depth, the bits it is read as, the content that the old store has
DecodeTask = tuple[str, str, Path, ResizeSpec, int, int, str]


def _decode_row(task: DecodeTask) -> CacheEntry:
    """Read one image; without pixels where the content is what the old store has already."""
    i, path, root, frame, depth, used, known = task
    source = SourceFile(path, UNREADABLE, 0, "")
    try:
        status = (root / path).stat()
        content = read_file(root / path)
        source = SourceFile(
            path, status.st_size, status.st_mtime_ns, hashlib.sha256(content).hexdigest(), depth
        )
        if source.sha256 == known:
            return CacheEntry(i, source, b"", "")
        pixels = decode_and_resize(content, root / path, frame, used)
        return CacheEntry(i, replace(source, content=hashlib.sha256(pixels).hexdigest()), pixels, "")
    except OSError as error:
        return CacheEntry(i, source, b"", f"unreadable ({error.strerror})")
    except BadImageError as error:
        return CacheEntry(i, source, b"", error.reason)


@dataclass
class DatasetIndex:
    """What is there before anything is done.

    Args:
        table, problems: see `load_table`.
        store: the prepared images, where they are those of the table.
    """

    table: pd.DataFrame
    problems: DataIssues
    store: ImageCache | None


def open_dataset(place: DatasetSpec, folder: Path, frame: ResizeSpec, *, prepared: bool) -> DatasetIndex:
    """Read a data set's table, see whether its images are prepared, and say what was found.

    Training does this before its slow imports, so that an error in the table is raised at once.

    Args:
        place: of the data set.
        folder: of the prepared images.
        frame: the square that the images are brought into.
        prepared: whether prepared images are wanted.

    Raises:
        BoneAgeError: see `load_table`.
    """
    table, problems = load_table(place)
    manifest = read_manifest(folder, frame) if prepared else None
    current = manifest is not None and is_current(manifest, relative_paths(place.root, table), place.root)
    store = ImageCache(folder, frame, manifest) if current else None
    note = f"{problems.source}: {len(table)} rows with an image"
    if store:
        note += (
            f", prepared in {folder} and trusted by the size and time of their files\n"
            "(python -m boneage_pl.prepare reads every byte)"
        )
    log.info("%s", note)
    return DatasetIndex(table, problems, store)
