"""A store in the making: interrupted at any moment, it can be continued."""

import hashlib
import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from boneage_pl import __version__
from boneage_pl.data.frame import Frame
from boneage_pl.data.store import HEADER, VERSION, Manifest, Source, npy_header


@dataclass
class Row:
    """One image on its way into a store."""

    id: str
    source: Source
    pixels: bytes  # none where the image cannot be read
    why: str  # it cannot be read; empty where it can


class Part:
    """A preparation that is not finished: the pixels of its images in order, and a journal of them."""

    def __init__(self, folder: Path, frame: Frame, levels: list[int]) -> None:
        self.folder, self.frame, self.levels = folder, frame, levels
        self.images: dict[str, Source] = {}
        self.unreadable: dict[str, tuple[Source, str]] = {}

    def __enter__(self) -> "Part":
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

    def keep(self, wanted: dict[str, str], root: Path) -> int:
        """Take over the images that an interrupted preparation of the same source has done; return how many.

        They are kept as far as the journal agrees with `wanted`, the source and the pixels.
        """
        self.pixels.seek(HEADER)
        end = HEADER, 0
        for (i, path), line in zip(wanted.items(), self.journal, strict=False):
            row = self._journalled(line)
            if row is None or row.id != i or not row.source.looks_like(root, path):
                break
            self._note(row)
            end = self.pixels.tell(), end[1] + len(line)
        for file, length in zip((self.pixels, self.journal), end, strict=True):
            file.truncate(length)
            file.seek(length)
        return len(self.images) + len(self.unreadable)

    def _journalled(self, line: bytes) -> Row | None:
        try:
            entry = json.loads(line)
            row = Row(entry["id"], Source(**entry["source"]), b"", entry["why"])
        except (ValueError, KeyError, TypeError):
            return None
        row.pixels = self.pixels.read(0 if row.why else self.frame.side**2)
        return row if zlib.crc32(row.pixels) == entry["crc"] else None

    def append(self, row: Row) -> None:
        """Add an image: its pixels first, then the line that says that they are there."""
        line = {"id": row.id, "source": asdict(row.source), "crc": zlib.crc32(row.pixels), "why": row.why}
        self.pixels.write(row.pixels)
        self.pixels.flush()
        self.journal.write(json.dumps(line).encode() + b"\n")
        self.journal.flush()
        self._note(row)

    def _note(self, row: Row) -> None:
        if row.why:
            self.unreadable[row.id] = row.source, row.why
        else:
            self.images[row.id] = row.source

    def finish(self) -> None:
        """Move the pixels and then the manifest into place, and remove what they replace."""
        self.pixels.seek(0)
        self.pixels.write(npy_header(len(self.images), self.frame.side))
        self.pixels.flush()
        os.fsync(self.pixels.fileno())
        self.pixels.seek(0)
        checksum = hashlib.file_digest(self.pixels, "sha256").hexdigest()
        file = self.folder / f"{self.frame}-{checksum[:12]}.npy"
        Path(self.pixels.name).replace(file)
        manifest = Manifest(
            self.frame.side,
            file.name,
            checksum,
            self.images,
            self.unreadable,
            self.levels,
            __version__,
            fit=self.frame.fit,
        )
        manifest.write(self.folder / f"{self.frame}.json")
        Path(self.journal.name).unlink()
        for other in self.folder.glob(f"{self.frame}-*.npy"):
            if other != file:
                other.unlink()
