"""Extract zip archives safely."""

import lzma
import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import atomic_path, check_free_space, format_bytes, translate_disk_errors

_CHUNK = 1 << 20  # bytes
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
# What `zipfile` raises for bytes that are no archive, or no longer the one that was packed.
CORRUPTION_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)


@dataclass
class _ByteBudget:
    """Bytes that may still be unpacked: one account for an archive and all that lie inside it."""

    left: int


def extract(archive: Path, root: Path, limit: float) -> int:
    """Unpack `archive` under `root`, archives inside it too, and return how many files it holds.

    Files that are there already with the same size and checksum are kept. A checksum costs reading the file
    once, much less than unpacking it, and finds what a power cut left behind a right size. Folders called
    `__MACOSX` and hidden entries are left out.

    Args:
        archive: a zip file. A damaged one is renamed, so that it is not taken for a good one again.
        root: the folder that receives the entries; made where there is none.
        limit: the bytes unpacked, in all, per byte of the archive, beyond which it is refused.

    Raises:
        BoneAgeError: the archive is damaged, not to be trusted, or larger than the disk's room.
    """
    try:
        allowance = _ByteBudget(int(archive.stat().st_size * limit))
        with tqdm(total=0, unit="B", unit_scale=True, desc=f"unpacking {archive.name}", disable=None) as bar:
            return _extract(archive, archive.name, root, allowance, bar)
    except CORRUPTION_ERRORS as error:
        raise _move_aside(archive, error) from error


def find_corruption(archive: Path) -> Path:
    """Return the name that a damaged archive is given."""
    return archive.with_name(f"{archive.name}.damaged")


def _extract(path: Path, name: str, root: Path, allowance: _ByteBudget, bar: tqdm) -> int:
    with zipfile.ZipFile(path) as archive:
        _check_entries(archive.infolist(), name, allowance)
        entries = [entry for entry in archive.infolist() if not entry.is_dir() and not is_hidden(entry)]
        missing = [e for e in entries if _is_archive(e) or not _is_extracted(root / e.filename, e)]
        check_free_space([(root, sum(entry.file_size for entry in missing))])
        bar.total += sum(entry.file_size for entry in missing)
        count = len(entries)
        for entry in missing:
            target = root / entry.filename
            if _is_archive(entry):
                inside = f"{entry.filename} in {name}"
                count += _extract_inner(archive, entry, target, inside, allowance, bar) - 1
            else:
                _write_entry(archive, entry, target, bar)
    return count


def _extract_inner(
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    target: Path,
    name: str,
    allowance: _ByteBudget,
    bar: tqdm,
) -> int:
    """Unpack an archive inside an archive into the folder where it lies; it does not stay there itself."""
    copy = target.with_name(f".{target.name}")
    _write_entry(archive, entry, copy, bar)
    try:
        return _extract(copy, name, target.parent, allowance, bar)
    except CORRUPTION_ERRORS as error:
        raise zipfile.BadZipFile(f"{name}: {error}") from error
    finally:
        with translate_disk_errors(copy):
            copy.unlink(missing_ok=True)


def _write_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, bar: tqdm) -> None:
    """Write one entry beside its place and move it there once it is whole and its checksum right."""
    with translate_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target, flush=False) as beside:
            with archive.open(entry) as packed, beside.open("wb") as file:
                while chunk := packed.read(_CHUNK):  # `zipfile` hands out no more than the declared size
                    file.write(chunk)
                    bar.update(len(chunk))
            if beside.stat().st_size != entry.file_size:
                raise zipfile.BadZipFile(f"{entry.filename!r} is shorter than declared")


def _is_archive(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.lower().endswith(".zip")


def _is_extracted(path: Path, entry: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != entry.file_size:
        return False
    checksum = 0
    with translate_disk_errors(path), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == entry.CRC


def is_hidden(entry: zipfile.ZipInfo) -> bool:
    """Whether it is what a Mac leaves in an archive, or a hidden file."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(entry.filename).parts)


def _check_entries(entries: list[zipfile.ZipInfo], name: str, allowance: _ByteBudget) -> None:
    """Raise `BoneAgeError`, before anything is written, for an archive that must not be unpacked."""
    for entry in entries:
        if problem := entry_error(entry):
            raise BoneAgeError(
                f"{name} is refused: its entry {entry.orig_filename!r} {problem}.\n"
                "Nothing of it was unpacked. If it does not come from a place you trust, delete it."
            )
    declared = sum(entry.file_size for entry in entries)
    if declared > allowance.left:
        raise BoneAgeError(
            f"{name} is refused: it would unpack to {format_bytes(declared)}, more than the"
            f" {format_bytes(allowance.left)} that unpack_limit leaves it.\n"
            "Nothing of it was unpacked. If it is what it should be, pass a larger unpack_limit=."
        )
    allowance.left -= declared


def entry_error(entry: zipfile.ZipInfo) -> str | None:
    """Return in words why an entry must not, or cannot, be unpacked; `None` where it can."""
    name = entry.orig_filename  # `filename` is what `zipfile` has made of it
    if "\\" in name or "\0" in name:
        return "has a backslash or a null byte in its name"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in name.split("/"):
        return "leads out of the folder"
    kind = stat.S_IFMT(entry.external_attr >> 16)  # the Unix file type, 0 where none was recorded
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.compress_type not in _COMPRESSIONS:
        return f"is compressed in a way that cannot be read here (method {entry.compress_type})"
    return None


def _move_aside(archive: Path, error: Exception) -> BoneAgeError:
    with translate_disk_errors(archive):
        archive.replace(find_corruption(archive))
    return BoneAgeError(
        f"{archive} is damaged: {error or type(error).__name__}.\n"
        f"It is now called {find_corruption(archive).name} (you may delete it).\n"
        "Run the same command again: it fetches the archive anew and keeps the files that are right."
    )
