"""A store in the making: interrupted at any moment, it can be continued."""

import hashlib
import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from boneage_pl import __version__
from boneage_pl.data.frame import ResizeSpec
from boneage_pl.data.store import HEADER, VERSION, CacheManifest, SourceFile, npy_header


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
