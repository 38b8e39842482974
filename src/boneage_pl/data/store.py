"""The prepared images of one square: a memory-mapped file of pixels, its index and what it was made from.

`<frame>.json`, the manifest, names the file of pixels beside it (`<frame>-<checksum>.npy`, which `numpy.load`
reads too), and gives for each image its row and its source. Both are written beside and moved into place,
the manifest last: what a manifest names is whole.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from boneage_pl.data.frame import Pixels, ResizeMode, ResizeSpec
from boneage_pl.data.images import BadImageError, read_file
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import atomic_write

VERSION = 3  # of the preparation: raise it when a pixel, or what is refused, would come out differently
UNREADABLE = -1  # the size of a file that could not be opened
HEADER = 128  # bytes before the first image, as `numpy.lib.format` pads them


@dataclass(frozen=True)
class SourceFile:
    """One original file: its path below `data.root`, its size and time on disk, its content.

    Of a file that the system did not give (`UNREADABLE`) nothing else is known: it is tried again each time.
    """

    path: str
    bytes: int
    mtime_ns: int
    sha256: str  # of the file; of a file that cannot be used as an image too
    depth: int = 0  # bits of the largest value of a 16-bit gray image; else 0
    content: str = ""  # SHA-256 of the prepared pixels: two files may show one picture

    def is_unchanged(self, root: Path, path: str) -> bool:
        """Whether the file at `path` below `root` has the size and time that this source had."""
        if self.bytes == UNREADABLE:
            return path == self.path and not _is_readable(root / path)
        try:
            found = os.stat(f"{root}{os.sep}{path}")  # noqa: PTH116 — a Path costs more than the question
        except OSError:
            return False
        return (path, found.st_size, found.st_mtime_ns) == (self.path, self.bytes, self.mtime_ns)


def _is_readable(path: Path) -> bool:
    try:
        read_file(path)
    except BadImageError:
        return False
    return True


@dataclass
class ImageIndex:
    """What is known of a data set's images, by id."""

    file_sha256: dict[str, str]  # SHA-256 of the file
    pixel_sha256: dict[str, str]  # SHA-256 of the pixels that are made of it
    depths: dict[str, int]  # bits of the largest value of a 16-bit gray image; else 0
    bit_depths: list[int]  # bits that 16-bit images are read as
    errors: dict[str, str]  # what those are instead that cannot be used


@dataclass
class CacheManifest:
    """What a store holds; an image's row is its place in `images`."""

    image_size: int
    file: str
    sha256: str  # of the file of pixels
    images: dict[str, SourceFile]  # by id
    unreadable: dict[str, tuple[SourceFile, str]]  # by id, with what it is instead
    bit_depths: list[int]  # bits that 16-bit images are read as, see `boneage_pl.data.depth`
    package: str
    version: int = VERSION
    mode: ResizeMode = "crop"

    @property
    def resize_spec(self) -> ResizeSpec:
        """The square that the images were brought into."""
        return ResizeSpec(self.image_size, self.mode)

    @property
    def sources(self) -> dict[str, SourceFile]:
        """All originals by id: those that could be read, then those that could not."""
        return {**self.images, **{i: source for i, (source, _) in self.unreadable.items()}}

    def write(self, path: Path) -> None:
        """Write the manifest to `path`."""
        atomic_write(path, json.dumps(asdict(self), indent=0))


def read_manifest(folder: Path, frame: ResizeSpec) -> CacheManifest | None:
    """Return the manifest of this square, or `None` where there is none that this version can use."""
    try:
        values: dict[str, Any] = json.loads((folder / f"{frame}.json").read_text(encoding="utf-8"))
        values["images"] = {i: SourceFile(**source) for i, source in values["images"].items()}
        values["unreadable"] = {i: (SourceFile(**s), why) for i, (s, why) in values["unreadable"].items()}
        manifest = CacheManifest(**values)
        whole = (folder / manifest.file).stat().st_size == HEADER + len(manifest.images) * frame.size**2
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole and (manifest.version, manifest.resize_spec) == (VERSION, frame) else None


def npy_header(count: int, image_size: int) -> bytes:
    """Return the first `HEADER` bytes of an .npy file of `count` images."""
    header = BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": (count, image_size, image_size)}
    np.lib.format.write_array_header_1_0(header, description)
    assert header.tell() == HEADER
    return header.getvalue()


class ImageCache:
    """The prepared images of one square, mapped read-only.

    Args:
        folder: where the store lies.
        frame: the square that they were brought into.
        manifest: of the store, where it has just been read.

    Raises:
        BoneAgeError: there is no store of this square, or not one that this version can use.
    """

    def __init__(self, folder: Path, frame: ResizeSpec, manifest: CacheManifest | None = None) -> None:
        manifest = manifest or read_manifest(folder, frame)
        if manifest is None:
            raise BoneAgeError(
                f"{folder} holds no prepared images of {frame.size} pixels that can be used "
                f"(data.fit={frame.mode}).\n"
                "Prepare them with  python -m boneage_pl.prepare data.root=<folder>  and the same options."
            )
        self.path = folder / manifest.file
        self.shape = (len(manifest.images), frame.size, frame.size)
        images = manifest.images
        self.images = ImageIndex(
            file_sha256={i: source.sha256 for i, source in images.items()},
            pixel_sha256={i: source.content for i, source in images.items()},
            depths={i: source.depth for i, source in images.items()},
            bit_depths=manifest.bit_depths,
            errors={i: why for i, (_, why) in manifest.unreadable.items()},
        )
        self.checksum = manifest.sha256
        self.sources = manifest.sources
        self.rows = {i: row for row, i in enumerate(manifest.images)}
        self._map()  # at once: a file that is mapped may be replaced by a newer one

    def _map(self) -> None:
        # all images, uint8 [N, H, W], read from the disk as they are asked for; nothing cannot be mapped
        self._file = self.path.open("rb")
        empty = self.shape[0] == 0
        self.pixels: Pixels = (
            np.empty(self.shape, np.uint8)
            if empty
            else np.memmap(self._file, np.uint8, "r", HEADER, self.shape)
        )

    def read(self, ids: Sequence[str]) -> Pixels:
        """Return the images of `ids`: uint8 [B, H, W].

        Raises:
            BoneAgeError: the file has been cut short since it was opened.
        """
        # what is mapped beyond a file's end kills the process that reads it
        if os.fstat(self._file.fileno()).st_size < HEADER + math.prod(self.shape):
            raise BoneAgeError(
                f"{self.path} was cut short while it was read.\n"
                "Delete it: the next start prepares the images anew."
            )
        return self.pixels[[self.rows[i] for i in ids]]

    def verify_checksum(self) -> bool:
        """Whether every byte is what was written (reads all of it)."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.checksum

    def __getstate__(self) -> dict[str, Any]:
        # a process that is handed the store maps the file itself
        return {name: value for name, value in self.__dict__.items() if name not in ("pixels", "_file")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()
