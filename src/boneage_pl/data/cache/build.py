"""Build the image cache of a table and open data sets."""

import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from boneage_pl.data.cache.index import index_images
from boneage_pl.data.cache.store import CacheWriter, ImageCache, ImageIndex
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.tables.load import load_table
from boneage_pl.data.tables.spec import DatasetSpec
from boneage_pl.data.tables.validate import DataIssues, check_on_invalid, drop_invalid_images
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import atomic_path
from boneage_pl.utils.processes import file_lock

log = logging.getLogger(__name__)


@dataclass
class DatasetIndex:
    """A data set's table, issues and cache.

    Args:
        spec: location of the data set.
        table, issues: see `load_table`.
        cache: the image cache, if it is current.
    """

    spec: DatasetSpec
    table: pd.DataFrame
    issues: DataIssues
    cache: ImageCache | None = None

    def cache_file(self, folder: Path, frame: ResizeSpec) -> Path:
        """Return the path of this table's cache in a folder."""
        table, folder = self.issues.source.absolute(), folder.absolute()
        name, sheet = table.stem, self.spec.sheet
        if table.parent != folder.parent or sheet:  # make the name unique
            name += f"-{zlib.crc32(os.fsencode(f'{os.path.relpath(table, folder)}:{sheet}')):08x}"
        return folder / f"{frame}-{name}.npy"

    def build_cache(
        self, folder: Path, frame: ResizeSpec, workers: int | None, *, verify: bool = False
    ) -> ImageCache:
        """Return this table's cache in a folder, see `build_cache`."""
        path = self.cache_file(folder, frame)
        return build_cache(self.table, self.spec.root, path, frame, workers, verify=verify)

    def usable_rows(self, images: ImageIndex, on_invalid: str, limit: int | None = 10) -> pd.DataFrame:
        """Return the table's rows with usable images, and add the others to the issues.

        Args:
            images: of the table.
            on_invalid: `raise` an error for issues, or `skip` them with a warning.
            limit: number of places that are listed for each problem.

        Raises:
            BoneAgeError: issues with `raise`; no usable row; or another value of `on_invalid`.
        """
        usable = drop_invalid_images(self.issues, self.table, images.errors, images.pixel_sha256)
        if check_on_invalid(on_invalid) == "raise" and self.issues:
            raise self.issues.error(limit)
        if self.issues:
            summary = self.issues.summary(limit)
            log.warning("%d unusable rows or images are skipped:\n%s", len(self.issues), summary)
        if usable.empty:
            raise BoneAgeError(f"{self.issues.source}: no usable row.")
        return usable.reset_index(drop=True)


def open_dataset(
    spec: DatasetSpec, folder: Path | None = None, frame: ResizeSpec | None = None
) -> DatasetIndex:
    """Read a data set's table and open its image cache if it is current.

    Training does this before slow imports, so that errors in the table are reported immediately.

    Args:
        spec: location of the data set.
        folder: of the cache, or `None`.
        frame: preprocessing of the images.

    Raises:
        BoneAgeError: see `load_table`.
    """
    index = DatasetIndex(spec, *load_table(spec))
    if folder is not None and frame is not None:
        paths = relative_paths(index.table, spec.root)
        index.cache = ImageCache.load(index.cache_file(folder, frame), frame, paths, spec.root)
    cached = f", cached in {index.cache.path} (current by size and time)" if index.cache else ""
    log.info("%s: %d rows with an image%s", index.issues.source, len(index.table), cached)
    return index


def build_cache(
    table: pd.DataFrame,
    root: Path,
    path: Path,
    frame: ResizeSpec,
    workers: int | None = None,
    *,
    verify: bool = False,
) -> ImageCache:
    """Return the cache of the images in `table`, built unless it is current.

    It is current if it has exactly these images and no file size or time has changed. It is written
    atomically; of concurrent processes one builds it and the others wait.

    Args:
        table: columns `id` and `path`.
        root: folder that stored paths are relative to, so that a cache can be moved with its data.
        path: of the cache; its folder is created.
        frame: preprocessing of the images.
        workers: number of decoding processes; `None` for one per core.
        verify: check the whole cache and rebuild it if it is damaged.

    Raises:
        BoneAgeError: the cache cannot be written, the disk is full, or a worker process was killed.
    """
    paths = relative_paths(table, root)
    try:
        if not verify and (cache := ImageCache.load(path, frame, paths, root)):
            return cache
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_name(f".{path.stem}.lock"), f"builds {path}"):
            cache = ImageCache.load(path, frame, paths, root)  # another process may have built it
            if cache and (not verify or cache.is_intact()):
                return cache
            with atomic_path(path) as partial_path, partial_path.open("wb") as file:
                writer = CacheWriter(file, len(paths), frame)
                label = f"caching {path} at {frame.size} px"
                writer.finish(index_images(paths, root, frame, workers, writer.write, label))
            return ImageCache(path, frame)
    except OSError as error:
        raise BoneAgeError(
            f"The image cache {path} cannot be written: {error.strerror or error}.\n"
            "Choose another folder with data.cache_dir=<folder>, or pass data.cache=false to decode the\n"
            "original files for every sample, which is slower."
        ) from error


def relative_paths(table: pd.DataFrame, root: Path) -> dict[str, str]:
    """Return the paths of a table's images relative to `root`, by id."""
    start = f"{root}{os.sep}"  # os.path.relpath is slower than a stat
    return {
        i: path[len(start) :] if path.startswith(start) else os.path.relpath(path, root)
        for i, path in sorted(zip(table["id"].tolist(), table["path"].tolist(), strict=True))
    }
