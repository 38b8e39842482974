"""Room on disks, and files that are there whole or not at all."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boneage_pl.errors import BoneAgeError
from boneage_pl.machine.whole import atomic_write


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
