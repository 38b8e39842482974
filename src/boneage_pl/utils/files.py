"""Paths and files: expand, walk, write atomically, check free space."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boneage_pl.errors import BoneAgeError


def expand_path(text: str) -> Path:
    """Return the path with `~` expanded.

    Raises:
        BoneAgeError: unknown user or home folder, a name that is too long, or a folder without permission.
    """
    try:
        path = Path(text).expanduser()
        path.lstat()
    except RuntimeError as error:
        raise BoneAgeError(f"{text}: no such home folder. Give the full path, or set HOME.") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EACCES):  # `Path.exists` would raise them later
            short = text if len(text) <= 200 else f"{text[:60]}…"
            raise BoneAgeError(f"{short}: {error.strerror}.") from error
    return path


@contextmanager
def atomic_path(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and move the file written there to `path`.

    A leftover of a killed process is removed first, since it may be a hard link. If the block raises, `path`
    is unchanged.

    Args:
        path: a file in an existing folder.
        flush: sync the content to the disk first; not needed for many reproducible files.
    """
    beside = path.with_name(f"{path.name}.tmp")
    try:
        beside.unlink(missing_ok=True)
        yield beside
        if flush:
            with beside.open("rb") as file:
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, content: str | bytes, *, flush: bool = True) -> None:
    """Write a file atomically."""
    with atomic_path(path, flush=flush) as beside:
        beside.write_bytes(content if isinstance(content, bytes) else content.encode())


def format_bytes(size: float) -> str:
    """Format a number of bytes in decimal units: `9.6 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def check_free_space(needs: list[tuple[Path, int]]) -> None:
    """Raise `BoneAgeError` if a disk has less space than its (folder, bytes) need together."""
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needs:
        with translate_disk_errors(folder):
            disk = _existing_parent(folder).stat().st_dev
        first, needed = disks.get(disk, (folder, 0))
        disks[disk] = (first, needed + size)
    for folder, needed in disks.values():
        free = shutil.disk_usage(_existing_parent(folder)).free
        if needed > free:
            raise BoneAgeError(
                f"Not enough disk space for {folder.absolute()}:\n"
                f"{format_bytes(needed)} are needed, {format_bytes(free)} are free.\n"
                "Free some space, or choose a folder on another disk. Existing files are kept."
            )


@contextmanager
def translate_disk_errors(path: Path) -> Iterator[None]:
    """Turn errors in writing `path` into a `BoneAgeError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BoneAgeError(
                f"The disk is full: {path} could not be written completely.\n"
                "Free some space and run the same command to continue."
            ) from error
        raise BoneAgeError(
            f"{path} cannot be written: {error.strerror or error}.\nChoose a folder with write permission."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically, see `translate_disk_errors`."""
    with translate_disk_errors(path):
        atomic_write(path, text)


def _existing_parent(folder: Path) -> Path:
    folder = folder.absolute()
    return next(f for f in (folder, *folder.parents) if f.exists())


def iter_files(root: Path) -> Iterator[str]:
    """Yield every file under `root`, following links once, without hidden and macOS resource files."""
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s != "__MACOSX")
        for name in sorted(names):
            if not name.startswith((".", "~$")):  # ~$: Excel's lock files
                yield f"{folder}{os.sep}{name}"


def filter_by_suffix(files: list[str], suffixes: Iterable[str]) -> list[str]:
    """Return the files with one of the suffixes, ignoring case."""
    endings = tuple(suffixes)
    return [file for file in files if file.lower().endswith(endings)]
