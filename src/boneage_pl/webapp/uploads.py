"""Uploaded files, which expire."""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

_UPLOAD, _UNPACKED = "upload_", "unpacked_"
MAX_AGE_SECONDS = 3600  # our choice: unused files are deleted after this time
_FREE_BYTES = 16 << 20  # our choice: disk space that uploads leave free


class Uploads:
    """The folder of uploaded files.

    Gradio names files by their content, so identical uploads share a path. Here each upload gets a folder
    with a random name, so that only its client can name the file.

    Args:
        folder: an empty, private folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._arriving = 0
        self._lock = Lock()

    def have_room(self, size: int) -> bool:
        """Whether the disk has room for an upload of `size` bytes."""
        self.folder.mkdir(parents=True, exist_ok=True)  # the system may have cleaned its temporary folder
        return shutil.disk_usage(self.folder).free > size + _FREE_BYTES

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Delete Gradio's copies at the end of the block, unless other uploads are still arriving."""
        with self._lock:
            self._arriving += 1
        try:
            yield
        finally:
            with self._lock:
                self._arriving -= 1
                if not self._arriving:
                    self._delete(lambda path: not path.name.startswith((_UPLOAD, _UNPACKED)))

    def claim(self, path: str) -> str:
        """Link an uploaded file into a folder of its own and return its new path."""
        folder = self.folder / f"{_UPLOAD}{secrets.token_hex(16)}"
        folder.mkdir(parents=True)
        target = folder / Path(path).name
        try:
            os.link(path, target)
        except OSError:  # no hard links
            shutil.copyfile(path, target)
        return str(target)

    @contextmanager
    def release(self, paths: Iterable[Path]) -> Iterator[None]:
        """Delete uploads at the end of the block."""
        paths = [path for path in paths if self.contains(path)]
        try:
            yield
        finally:
            for path in paths:
                with suppress(OSError):
                    path.unlink()
                    path.parent.rmdir()

    def contains(self, path: Path) -> bool:
        """Whether a path is that of an existing upload, see `claim`."""
        with suppress(OSError, ValueError):
            folder = path.resolve().parent
            inside = folder.parent == self.folder.resolve() and folder.name.startswith(_UPLOAD)
            return inside and path.is_file()
        return False

    @contextmanager
    def unpack_folder(self) -> Iterator[Path]:
        """Yield a folder for unpacked files, which is deleted at the end of the block."""
        self.folder.mkdir(parents=True, exist_ok=True)  # the system may have cleaned its temporary folder
        with TemporaryDirectory(prefix=_UNPACKED, dir=self.folder) as folder:
            yield Path(folder)

    def delete_expired(self, now: float | None = None) -> None:
        """Delete expired uploads and partial files.

        Args:
            now: current time, seconds since the epoch.
        """
        oldest = (now or time.time()) - MAX_AGE_SECONDS
        self._delete(lambda path: not path.name.startswith(_UNPACKED) and path.lstat().st_mtime < oldest)

    def _delete(self, chosen: Callable[[Path], bool]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in list(self.folder.iterdir()):
            with suppress(OSError):  # already deleted
                if chosen(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
