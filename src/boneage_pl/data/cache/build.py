"""Build the image cache of a table, and open a data set through it."""

import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from boneage_pl.data.cache.index import index_images
from boneage_pl.data.cache.store import CacheWriter, ImageCache
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.tables.load import load_table
from boneage_pl.data.tables.spec import DatasetSpec
from boneage_pl.data.tables.validate import DataIssues
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import atomic_path
from boneage_pl.utils.processes import file_lock

log = logging.getLogger(__name__)


@dataclass
class DatasetIndex:
    """A data set before anything is done.

    Args:
        spec: where it is.
        table, issues: see `load_table`.
        cache: of its images, where it is current.
    """

    spec: DatasetSpec
    table: pd.DataFrame
    issues: DataIssues
    cache: ImageCache | None = None

    def cache_file(self, folder: Path, frame: ResizeSpec) -> Path:
        """Return the path of the cache of this table's images in a folder."""
        table, folder = self.issues.source.absolute(), folder.absolute()
        name, sheet = table.stem, self.spec.sheet
        if table.parent != folder.parent or sheet:  # several tables may have this name
            name += f"-{zlib.crc32(os.fsencode(f'{os.path.relpath(table, folder)}:{sheet}')):08x}"
        return folder / f"{frame}-{name}.npy"

    def build_cache(
        self, folder: Path, frame: ResizeSpec, workers: int | None, *, verify: bool = False
    ) -> ImageCache:
        """Return the cache of this table's images in a folder, see `build_cache`."""
        path = self.cache_file(folder, frame)
        return build_cache(self.table, self.spec.root, path, frame, workers, verify=verify)


def open_dataset(
    spec: DatasetSpec, folder: Path | None = None, frame: ResizeSpec | None = None
) -> DatasetIndex:
    """Read a data set's table and open the cache of its images, if it is current.

    Training does this before its slow imports, so that an error in the table is raised at once.

    Args:
        spec: of the data set.
        folder: of the cache; `None` for none.
        frame: the square that the images are brought into.

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
    """Return the cache of the images in `table`, built where it is not current.

    It is current if it holds exactly these images, and no file has another size or time. It is written
    beside and moved into place; of several processes that call at once one builds it, and the others wait.

    Args:
        table: columns `id` and `path`.
        root: the folder that paths are stored relative to, so that a cache may move with its data.
        path: of the cache; its folder is made.
        frame: the square that the images are brought into.
        workers: processes that decode; `None` for one a core.
        verify: read the whole cache, and rebuild it where it is damaged.

    Raises:
        BoneAgeError: it cannot be written, the disk is full, or a worker process was killed.
    """
    paths = relative_paths(table, root)
    try:
        if not verify and (cache := ImageCache.load(path, frame, paths, root)):
            return cache
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_name(f".{path.stem}.lock"), f"builds {path}"):
            cache = ImageCache.load(path, frame, paths, root)  # another process may have been here
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
            "Name another folder with data.cache_dir=<folder>; or pass data.cache=false, which decodes the\n"
            "original files for every sample, more slowly."
        ) from error


def relative_paths(table: pd.DataFrame, root: Path) -> dict[str, str]:
    """Return the paths of a table's images as seen from `root`, by id."""
    start = f"{root}{os.sep}"  # os.path.relpath costs more than reading a file's size and time
    return {
        i: path[len(start) :] if path.startswith(start) else os.path.relpath(path, root)
        for i, path in sorted(zip(table["id"].tolist(), table["path"].tolist(), strict=True))
    }
