"""Memory-mapped cache of resized images, with a manifest.

`<frame>.json`, the manifest, names the file of pixels beside it (`<frame>-<checksum>.npy`, which `numpy.load`
reads too), and gives for each image its row and its source. Both are written beside and moved into place,
the manifest last: what a manifest names is whole.
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from boneage_pl import __version__
from boneage_pl.data.images.decode import BadImageError, read_file
from boneage_pl.data.images.resize import Pixels, ResizeMode, ResizeSpec
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import atomic_write

VERSION = 4  # of the preparation: raise it when a pixel, or what is refused, would come out differently
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
            status = os.stat(f"{root}{os.sep}{path}")  # noqa: PTH116 — a Path costs more than the question
        except OSError:
            return False
        return (path, status.st_size, status.st_mtime_ns) == (self.path, self.bytes, self.mtime_ns)


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
    bit_depths: list[int]  # bits that 16-bit images are read as, see `boneage_pl.data.images.bit_depth`
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
                f"(data.resize_mode={frame.mode}).\n"
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
        # all images, uint8 [N, H, W], read from the disk on access; an empty file cannot be mapped
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


@dataclass
class CacheEntry:
    """One image on its way into a store."""

    id: str
    source: SourceFile
    pixels: bytes  # none where the image cannot be read
    error: str  # it cannot be read; empty where it can


class PartialCache:
    """A preparation that is not finished: the pixels of its images in order, and a journal of them."""

    def __init__(self, folder: Path, frame: ResizeSpec, levels: list[int]) -> None:
        self.folder, self.frame, self.levels = folder, frame, levels
        self.images: dict[str, SourceFile] = {}
        self.unreadable: dict[str, tuple[SourceFile, str]] = {}

    def __enter__(self) -> "PartialCache":
        # what another version of the preparation has begun cannot be continued, nor with 16-bit images read
        # as other numbers of bits
        bits = "".join(f"_{level}" for level in self.levels)
        begun = f".{self.frame}.v{VERSION}{bits}.part"
        for other in self.folder.glob(f".{self.frame}.*part*"):
            if not other.name.startswith(begun):
                other.unlink()
        # "a" makes what is missing and keeps what is there; nothing is written through it
        paths = self.folder / begun, self.folder / f"{begun}.jsonl"
        for path in paths:
            path.open("ab").close()
        self.pixels, self.journal = (path.open("r+b") for path in paths)
        return self

    def __exit__(self, *_: object) -> None:
        self.pixels.close()
        self.journal.close()

    def resume(self, wanted: dict[str, str], root: Path) -> int:
        """Take over the images that an interrupted preparation of the same source has done; return how many.

        They are kept as far as the journal agrees with `wanted`, the source and the pixels.
        """
        self.pixels.seek(HEADER)
        end = HEADER, 0
        for (i, path), line in zip(wanted.items(), self.journal, strict=False):
            row = self._read_journal(line)
            if row is None or row.id != i or not row.source.is_unchanged(root, path):
                break
            self._write_journal(row)
            end = self.pixels.tell(), end[1] + len(line)
        for file, length in zip((self.pixels, self.journal), end, strict=True):
            file.truncate(length)
            file.seek(length)
        return len(self.images) + len(self.unreadable)

    def _read_journal(self, line: bytes) -> CacheEntry | None:
        try:
            entry = json.loads(line)
            row = CacheEntry(entry["id"], SourceFile(**entry["source"]), b"", entry["why"])
        except (ValueError, KeyError, TypeError):
            return None
        row.pixels = self.pixels.read(0 if row.error else self.frame.size**2)
        return row if zlib.crc32(row.pixels) == entry["crc"] else None

    def append(self, row: CacheEntry) -> None:
        """Add an image: its pixels first, then the line that says that they are there."""
        line = {"id": row.id, "source": asdict(row.source), "crc": zlib.crc32(row.pixels), "why": row.error}
        self.pixels.write(row.pixels)
        self.pixels.flush()
        self.journal.write(json.dumps(line).encode() + b"\n")
        self.journal.flush()
        self._write_journal(row)

    def _write_journal(self, row: CacheEntry) -> None:
        if row.error:
            self.unreadable[row.id] = row.source, row.error
        else:
            self.images[row.id] = row.source

    def finish(self) -> None:
        """Move the pixels and then the manifest into place, and remove what they replace."""
        self.pixels.seek(0)
        self.pixels.write(npy_header(len(self.images), self.frame.size))
        self.pixels.flush()
        os.fsync(self.pixels.fileno())
        self.pixels.seek(0)
        checksum = hashlib.file_digest(self.pixels, "sha256").hexdigest()
        file = self.folder / f"{self.frame}-{checksum[:12]}.npy"
        Path(self.pixels.name).replace(file)
        manifest = CacheManifest(
            self.frame.size,
            file.name,
            checksum,
            self.images,
            self.unreadable,
            self.levels,
            __version__,
            mode=self.frame.mode,
        )
        manifest.write(self.folder / f"{self.frame}.json")
        Path(self.journal.name).unlink()
        for other in self.folder.glob(f"{self.frame}-*.npy"):
            if other != file:
                other.unlink()
