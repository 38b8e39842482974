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

_MAX_DIRECTORY = 4 << 20  # bytes; our choice: of a zip archive's directory, about 40,000 names
_ZIP_ERRORS = (*CORRUPTION_ERRORS, RuntimeError, OSError)
_MISSING = "no file has this name"


@dataclass(frozen=True)
class UploadedFile:
    """An uploaded file: where it is stored, and its original name."""

    path: Path
    name: str


@dataclass
class UploadBatch:
    """Uploaded files, unpacked into a folder.

    Args:
        folder: of the unpacked files.
        names: original name of each image, by path.
        tables: original name of each table, by path.
        errors: name and reason for each rejected file.
    """

    folder: Path
    names: dict[Path, str] = field(default_factory=dict)
    tables: dict[Path, str] = field(default_factory=dict)
    errors: list[tuple[str, str]] = field(default_factory=list)

    def requests(self, sex: Any) -> Iterator[PredictionRequest]:
        """Yield prediction requests: the rows of the tables, then the images that no table lists.

        Args:
            sex: where no table has it, see `boneage_pl.prediction.inputs.parse_sex`.
        """
        requests = set()
        for table, name in self.tables.items():
            for request in self._rows(table, name, sex):
                path = Path(os.path.abspath(request.path))  # noqa: PTH100 — without resolving links
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
        """Return the original name of an image."""
        return self.names.get(Path(path), Path(path).name)


def unpack_uploads(
    files: Sequence[UploadedFile], folder: Path, max_images: int, max_bytes: int
) -> UploadBatch:
    """Unpack uploaded files into a folder; a bad file or archive entry is rejected individually.

    Args:
        files: the uploads.
        folder: an empty folder on the same disk.
        max_images: largest number of images.
        max_bytes: bytes that all zip archives together may unpack to.

    Raises:
        BoneAgeError: no files, or too many images.
    """
    batch, remaining = UploadBatch(folder), max_bytes
    apart = folder / secrets.token_hex(8)  # no uploaded file has this name
    for number, file in enumerate(files):
        part = apart / str(number)  # names may repeat
        part.mkdir(parents=True)
        if file.name.lower().endswith(".zip"):
            remaining = _unzip(file, part, batch, remaining)
        elif _is_table(Path(file.name).suffix.lower()):
            batch.tables[_place_file(file, folder, part)] = file.name
        else:
            batch.names[_place_file(file, folder, part)] = file.name
        if len(batch.names) > max_images:
            raise BoneAgeError(f"Drop at most {max_images} images at a time.")
    if not batch.names and not batch.errors:
        raise BoneAgeError("Drop radiographs, or a zip archive of them.")
    return batch


def _place_file(file: UploadedFile, folder: Path, apart: Path) -> Path:
    """Link a file into the folder under its original name, by which a table lists it, and return its path."""
    name = Path(file.name).name.replace("\0", "") or "file"
    for path in (folder / name, apart / name):
        try:
            os.link(file.path, path)
            return path
        except OSError:  # name taken or too long, or no hard links
            continue
    path = apart / f"file{Path(file.name).suffix[:10]}"
    shutil.copyfile(file.path, path)
    return path


def _unzip(file: UploadedFile, folder: Path, batch: UploadBatch, remaining: int) -> int:
    """Unpack the radiographs of a zip archive and return the bytes that remain of `remaining`."""
    try:
        if _directory_size(file.path) > _MAX_DIRECTORY:
            raise ValueError("its directory is too large")
        with zipfile.ZipFile(file.path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir()]
            before = len(batch.names), len(batch.tables), len(batch.errors)
            for entry in entries:
                remaining = _extract_entry(
                    archive, entry, f"{file.name}/{entry.filename}", folder, batch, remaining
                )
        if before == (len(batch.names), len(batch.tables), len(batch.errors)):
            batch.errors.append((file.name, "it contains no radiograph"))
    except _ZIP_ERRORS as error:
        batch.errors.append((file.name, f"not a readable zip archive: {_reason(error)}"))
    return remaining


def _extract_entry(
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    name: str,
    folder: Path,
    batch: UploadBatch,
    remaining: int,
) -> int:
    suffix = Path(entry.filename).suffix.lower()
    problem = None
    if ".." in Path(entry.filename).parts or Path(entry.filename).is_absolute():
        problem = "has a path outside the folder"
    elif is_hidden(entry):
        return remaining
    elif suffix == ".zip":
        problem = "is a nested zip archive, which is not unpacked"
    elif entry.file_size > remaining:
        problem = f"exceeds the {remaining >> 20} MB that remain for unpacking"
    elif archive.getinfo(entry.filename) is not entry:
        problem = "has the same name as another entry"
    if problem is not None:
        batch.errors.append((name, problem))
        return remaining
    try:
        path = Path(archive.extract(entry, folder))  # at most the declared size
    except _ZIP_ERRORS as error:
        batch.errors.append((name, f"cannot be unpacked: {_reason(error)}"))
    else:
        if _is_table(suffix):
            batch.tables[path] = name
        elif not other_kind(str(path)):
            batch.names[path] = name
    return remaining - entry.file_size


def _reason(error: Exception) -> str:
    """Describe an error without paths of the server."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _is_table(suffix: str) -> bool:
    return suffix in TABLE_SUFFIXES and suffix != ".txt"  # usually a README


def _directory_size(path: Path) -> int:
    """Return the largest directory size, in bytes, declared at the end of a zip archive."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 1 << 17), os.SEEK_END)
        tail = file.read()
    ends = tail.split(b"PK\x05\x06")[1:]
    return max((int.from_bytes(end[8:12], "little") for end in ends), default=0)
