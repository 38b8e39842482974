"""Extract zip archives."""

import lzma
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import check_free_space, format_bytes

# Raised by `zipfile` for damaged archives.
CORRUPTION_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError)


def extract(archive: Path, root: Path, limit: float) -> int:
    """Extract `archive` and nested archives into `root` and return the number of files.

    `zipfile` keeps files inside `root` and checks CRCs. Hidden files and `__MACOSX` are skipped. A damaged
    archive is renamed, so that it is downloaded again.

    Args:
        archive: a zip file.
        root: the target folder.
        limit: largest ratio of extracted to compressed bytes.

    Raises:
        BoneAgeError: the archive is damaged or extracts to too much, or a file cannot be read or written.
    """
    try:
        files = _extract(archive, root, limit)
        for file in [file for file in files if file.suffix.lower() == ".zip"]:
            files += _extract(file, file.parent, limit)
            files.remove(file)
            file.unlink()
        return len(files)
    except CORRUPTION_ERRORS as error:
        raise set_aside(archive, str(error) or type(error).__name__) from error
    except RuntimeError as error:  # encrypted, or compressed by an unknown method
        raise BoneAgeError(f"{archive} cannot be extracted: {error}.") from error
    except OSError as error:
        raise BoneAgeError(
            f"{archive} cannot be extracted into {root}: {error.strerror or error}.\n"
            "Check the disk and its free space and run the same command again. Nothing was removed."
        ) from error


def set_aside(archive: Path, problem: str) -> BoneAgeError:
    """Rename a damaged archive and return the error."""
    archive.replace(damaged_path(archive))
    return BoneAgeError(
        f"{archive} is damaged: {problem}.\n"
        f"It was renamed to {damaged_path(archive).name}; the same command downloads it again."
    )


def damaged_path(archive: Path) -> Path:
    """Return the path of a damaged archive after renaming."""
    return archive.with_name(f"{archive.name}.damaged")


def _extract(archive: Path, root: Path, limit: float) -> list[Path]:
    with zipfile.ZipFile(archive) as opened:
        entries = [entry for entry in opened.infolist() if not entry.is_dir() and not is_hidden(entry)]
        size = sum(entry.file_size for entry in entries)
        if size > limit * archive.stat().st_size:
            raise BoneAgeError(
                f"{archive} would extract to {format_bytes(size)}, over unpack_limit={limit:g} times it.\n"
                "Nothing was extracted. If the archive is genuine, raise unpack_limit=."
            )
        check_free_space([(root, size)])
        bar = tqdm(entries, f"extracting {archive.name}", disable=None)
        return [Path(opened.extract(entry, root)) for entry in bar]


def is_hidden(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is a hidden file or macOS metadata."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(entry.filename).parts)
