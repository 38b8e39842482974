"""Image cache: a memory-mapped .npy file of resized images, followed by its index as JSON."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from boneage_pl.data.images.resize import Pixels, ResizeSpec

VERSION = 5  # increment when pixels or rejected images change
_RETRY = -1  # size of a file that could not be opened, or that needs an extra


@dataclass(frozen=True)
class SourceFile:
    """An image file with its size, time and decoding result.

    Args:
        path: below `data.root`.
        bytes, mtime_ns: size and modification time; -1 bytes to retry the file.
        sha256: of the file.
        pixel_sha256: of the resized pixels, since two files may contain one image.
        bit_depth: bits of the largest value of a gray image of more than 8 bits; else 0.
        error: why it cannot be used; empty otherwise.
    """

    path: str
    bytes: int = _RETRY
    mtime_ns: int = 0
    sha256: str = ""
    pixel_sha256: str = ""
    bit_depth: int = 0
    error: str = ""

    def is_unchanged(self, root: Path, path: str) -> bool:
        """Whether the file at `path` below `root` is unchanged, by size and time."""
        file = f"{root}{os.sep}{path}"
        if path != self.path or self.bytes == _RETRY:
            return path == self.path and not os.access(file, os.R_OK)
        try:
            status = os.stat(file)  # noqa: PTH116 — Path is slower
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.bytes, self.mtime_ns)


@dataclass
class ImageIndex:
    """Index of a data set's images.

    Args:
        files: by id.
        bit_depths: of the images of more than 8 bits, see `boneage_pl.data.images.bit_depth`.
    """

    files: dict[str, SourceFile]
    bit_depths: list[int]

    @cached_property
    def file_sha256(self) -> dict[str, str]:
        """SHA-256 of each usable image's file, by id."""
        return {i: file.sha256 for i, file in self.files.items() if not file.error}

    @cached_property
    def pixel_sha256(self) -> dict[str, str]:
        """SHA-256 of each usable image's resized pixels, by id."""
        return {i: file.pixel_sha256 for i, file in self.files.items() if not file.error}

    @cached_property
    def errors(self) -> dict[str, str]:
        """Errors of the unusable images, by id."""
        return {i: file.error for i, file in self.files.items() if file.error}

    def is_current(self, paths: dict[str, str], root: Path) -> bool:
        """Whether the index has exactly these images (id → path below `root`), by size and time."""
        files = self.files
        return files.keys() == paths.keys() and all(files[i].is_unchanged(root, p) for i, p in paths.items())


class ImageCache:
    """The resized images of a table, memory-mapped.

    Args:
        path: of the file, which `numpy.load` can read too.
        frame: preprocessing of the images.

    Raises:
        OSError: unreadable.
        ValueError: damaged, or of another preprocessing or version.
    """

    def __init__(self, path: Path, frame: ResizeSpec) -> None:
        self.path, self.frame = path, frame
        with path.open("rb") as file:  # the mapping survives replacement of the file
            np.lib.format.read_magic(file)
            shape = np.lib.format.read_array_header_1_0(file)[0]
            start = file.tell()
            file.seek(start + math.prod(shape))
            version, label, bit_depths, files = json.load(file)
            if (version, label, shape) != (VERSION, str(frame), (len(files), frame.size, frame.size)):
                raise ValueError(f"{path}: another version or preprocessing")
            self.images = ImageIndex({i: SourceFile(*values) for i, values in files.items()}, bit_depths)
            self.rows = {i: row for row, i in enumerate(files)}
            # an empty file cannot be mapped
            self.pixels: Pixels = (
                np.memmap(file, np.uint8, "r", start, shape) if files else np.empty(shape, np.uint8)
            )

    @classmethod
    def load(cls, path: Path, frame: ResizeSpec, paths: dict[str, str], root: Path) -> "ImageCache | None":
        """Return the cache at `path` if it is current, see `ImageIndex.is_current`."""
        try:
            cache = cls(path, frame)
        except Exception:  # numpy raises many types for damaged headers
            return None
        return cache if cache.images.is_current(paths, root) else None

    def read(self, ids: Sequence[str]) -> Pixels:
        """Return the images of `ids`: uint8 [B, H, W]."""
        return self.pixels[[self.rows[i] for i in ids]]

    def is_intact(self) -> bool:
        """Whether all pixels match their hashes."""
        expected = self.images.pixel_sha256
        return all(
            hashlib.sha256(self.read([i]).tobytes()).hexdigest() == digest for i, digest in expected.items()
        )

    def __reduce__(self) -> tuple[type["ImageCache"], tuple[Path, ResizeSpec]]:
        return ImageCache, (self.path, self.frame)  # workers map the file themselves


class CacheWriter:
    """Writes a cache file: images in any order, then the index.

    Args:
        file: open for writing.
        count: number of images.
        frame: preprocessing of the images.
    """

    def __init__(self, file: IO[bytes], count: int, frame: ResizeSpec) -> None:
        self.file, self.frame = file, frame
        shape = (count, frame.size, frame.size)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        self.start, self.end = file.tell(), file.tell() + math.prod(shape)

    def write(self, row: int, pixels: bytes) -> None:
        """Write the pixels of a row."""
        self.file.seek(self.start + row * self.frame.size**2)
        self.file.write(pixels)

    def finish(self, index: ImageIndex) -> None:
        """Write the index."""
        files = {i: astuple(file) for i, file in index.files.items()}
        self.file.truncate(self.end)
        self.file.seek(self.end)
        self.file.write(json.dumps([VERSION, str(self.frame), index.bit_depths, files]).encode())
