"""Paths and files: expand, walk, write atomically, check free space."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boneage_pl.errors import BoneAgeError


def expand_path(text: str) -> Path:
    """Return the path, with a `~` at its start as the home folder.

    Raises:
        BoneAgeError: no such user, no home folder is known, a name that is longer than a file's may be, or a
            folder that may not be entered.
    """
    try:
        path = Path(text).expanduser()
        path.lstat()
    except RuntimeError as error:
        raise BoneAgeError(
            f"{text}: there is no such home folder here. Write the whole path, or set HOME."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EACCES):  # `Path.exists` would raise them anywhere
            shown = text if len(text) <= 200 else f"{text[:60]}…"
            raise BoneAgeError(f"{shown}: {error.strerror}.") from error
    return path


@contextmanager
def atomic_path(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a path beside `path`, and move what the block has written there into its place.

    What a killed process has left beside it is removed first: it may be a second name of another file. If
    the block raises, `path` is as it was.

    Args:
        path: a file, in a folder that is there.
        flush: see the content on the disk first; not for what can be made again, by the thousand.
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
    """Write a file so that a reader finds the old content or the new one, never half of it."""
    with atomic_path(path, flush=flush) as beside:
        beside.write_bytes(content if isinstance(content, bytes) else content.encode())


def format_bytes(size: float) -> str:
    """Return a number of bytes as a person says it, in decimal units: `9.6 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def check_free_space(needs: list[tuple[Path, int]]) -> None:
    """Raise `BoneAgeError` where a disk has less room than the (folder, bytes) on it need together."""
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
                f"Not enough room on the disk of {folder.absolute()}:\n"
                f"{format_bytes(needed)} are needed, {format_bytes(free)} are free.\n"
                "Free some, or choose a folder on another disk. Nothing that is there already is lost."
            )


@contextmanager
def translate_disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says against writing `path` into a `BoneAgeError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BoneAgeError(
                f"The disk is full: {path} could not be written to its end.\n"
                "Free some room and run the same command again; it continues from what is there."
            ) from error
        raise BoneAgeError(
            f"{path} cannot be written: {error.strerror or error}.\n"
            "Choose another folder, or one that you may write to."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file so that a reader finds the old text or the new one, never half of it."""
    with translate_disk_errors(path):
        atomic_write(path, text)


def _existing_parent(folder: Path) -> Path:
    folder = folder.absolute()
    return next(f for f in (folder, *folder.parents) if f.exists())


def iter_files(root: Path) -> Iterator[str]:
    """Yield every file under `root`, links followed once, hidden and macOS resource entries left out."""
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s != "__MACOSX")
        for name in sorted(names):
            if not name.startswith((".", "~$")):  # ~$: what Excel leaves while a table is open
                yield f"{folder}{os.sep}{name}"


def filter_by_suffix(files: list[str], suffixes: Iterable[str]) -> list[str]:
    """Return the files with one of some suffixes, in any case."""
    ends = tuple(suffixes)
    return [file for file in files if file.lower().endswith(ends)]
