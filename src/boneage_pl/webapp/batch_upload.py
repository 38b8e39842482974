"""Unpack uploads of several files, zip archives and tables."""

import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boneage_pl.data.tables.spec import TABLE_SUFFIXES
from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.fetch.extract import CORRUPTION_ERRORS, is_hidden
from boneage_pl.prediction.inputs import other_kind
from boneage_pl.prediction.types import PredictionRequest

_DIRECTORY = 4 << 20  # bytes; our choice: of a zip file's list of contents, some forty thousand names
_ZIP_ERRORS = (*CORRUPTION_ERRORS, RuntimeError, OSError)
_MISSING = "no file has this name"


@dataclass(frozen=True)
class UploadedFile:
    """An upload: where it lies, and what its owner calls it."""

    path: Path
    name: str


@dataclass
class UploadBatch:
    """What was dropped, laid out in a folder.

    Args:
        folder: it lies in.
        names: what each image is called by its owner, by its path.
        tables: among it, and what they are called.
        errors: what cannot be predicted: name and reason.
    """

    folder: Path
    names: dict[Path, str] = field(default_factory=dict)
    tables: dict[Path, str] = field(default_factory=dict)
    errors: list[tuple[str, str]] = field(default_factory=list)

    def requests(self, sex: Any) -> Iterator[PredictionRequest]:
        """Yield prediction requests: a table's rows, then the images that no table names.

        Args:
            sex: of those that no table says it of, see `boneage_pl.prediction.inputs.parse_sex`.
        """
        requests = set()
        for table, name in self.tables.items():
            for request in self._rows(table, name, sex):
                path = Path(os.path.abspath(request.path))  # noqa: PTH100 — links are none of ours
                if not request.error and path not in self.names:
                    yield PredictionRequest(path.name, request.male, _MISSING)
                else:
                    requests.add(path)
                    yield PredictionRequest(path, request.male, request.error)
        for path in self.names:
            if path not in requests:
                yield PredictionRequest(path, sex)

    def _rows(self, table: Path, name: str, sex: Any) -> list[PredictionRequest]:
        from boneage_pl.prediction.inputs import requests_from_table  # imports pandas

        try:
            return requests_from_table(table, sex)
        except BoneAgeError as error:
            self.errors.append((name, first_line(error).replace(f"{table}: ", "")))
            return []

    def display_name(self, path: str) -> str:
        """Return what an image is called by its owner."""
        return self.names.get(Path(path), Path(path).name)


def unpack_uploads(files: Sequence[UploadedFile], folder: Path, max_images: int, room: int) -> UploadBatch:
    """Lay out what was dropped; a bad file or entry is rejected by itself.

    Args:
        files: that were dropped.
        folder: an empty one, beside them.
        max_images: no more are taken.
        room: bytes that zip files may unpack to, all together.

    Raises:
        BoneAgeError: nothing was dropped, or more images than are taken.
    """
    laid = UploadBatch(folder)
    apart = folder / secrets.token_hex(8)  # files have any name, but not this
    for number, file in enumerate(files):
        part = apart / str(number)  # names need not differ
        part.mkdir(parents=True)
        if file.name.lower().endswith(".zip"):
            room = _unzip(file, part, laid, room)
        elif _is_table(Path(file.name).suffix.lower()):
            laid.tables[_place_file(file, folder, part)] = file.name
        else:
            laid.names[_place_file(file, folder, part)] = file.name
        if len(laid.names) > max_images:
            raise BoneAgeError(f"These are more than {max_images} images: drop fewer at a time.")
    if not laid.names and not laid.errors:
        raise BoneAgeError("Drop radiographs, or a zip file of them.")
    return laid


def _place_file(file: UploadedFile, folder: Path, apart: Path) -> Path:
    """Return the file under its owner's name in a folder: a table names files so."""
    name = Path(file.name).name.replace("\0", "") or "file"
    for path in (folder / name, apart / name):
        try:
            os.link(file.path, path)
            return path
        except OSError:  # two files of one name, a name that is too long, or a disk without links
            continue
    path = apart / f"file{Path(file.name).suffix[:10]}"
    shutil.copyfile(file.path, path)
    return path


def _unzip(file: UploadedFile, folder: Path, laid: UploadBatch, room: int) -> int:
    """Unpack the radiographs of a zip file, and return the room that is left."""
    try:
        if _directory_of(file.path) > _DIRECTORY:
            raise ValueError("it lists more files than can be radiographs")
        with zipfile.ZipFile(file.path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir()]
            before = len(laid.names), len(laid.tables), len(laid.errors)
            for entry in entries:
                room = _extract_entry(archive, entry, f"{file.name}/{entry.filename}", folder, laid, room)
        if before == (len(laid.names), len(laid.tables), len(laid.errors)):
            laid.errors.append((file.name, "no radiograph is in it"))
    except _ZIP_ERRORS as error:
        laid.errors.append((file.name, f"no zip file that can be read: {_reason(error)}"))
    return room


def _extract_entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, folder: Path, laid: UploadBatch, room: int
) -> int:
    suffix = Path(entry.filename).suffix.lower()
    problem = None
    if ".." in Path(entry.filename).parts or Path(entry.filename).is_absolute():
        problem = "leads out of the folder"
    elif is_hidden(entry):
        return room
    elif suffix == ".zip":
        problem = "is a zip file in a zip file, which is not opened"
    elif entry.file_size > room:
        problem = f"would unpack to more than the {room >> 20} MB that are left"
    elif archive.getinfo(entry.filename) is not entry:
        problem = "has the name of another file in it"
    if problem is not None:
        laid.errors.append((name, problem))
        return room
    try:
        path = Path(archive.extract(entry, folder))  # no more than the declared size
    except _ZIP_ERRORS as error:
        laid.errors.append((name, f"cannot be unpacked: {_reason(error)}"))
    else:
        if _is_table(suffix):
            laid.tables[path] = name
        elif not other_kind(str(path)):
            laid.names[path] = name
    return room - entry.file_size


def _reason(error: Exception) -> str:
    """Return what is wrong, without the server's paths."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _is_table(suffix: str) -> bool:
    return suffix in TABLE_SUFFIXES and suffix != ".txt"  # most of those say "read me"


def _directory_of(path: Path) -> int:
    """Return the largest size in bytes that a zip file's end gives for its list of contents."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 1 << 17), os.SEEK_END)
        tail = file.read()
    ends = tail.split(b"PK\x05\x06")[1:]
    return max((int.from_bytes(end[8:12], "little") for end in ends), default=0)
