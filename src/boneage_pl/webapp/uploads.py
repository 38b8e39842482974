"""Uploaded files and session data with expiry."""

import os
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Generic, TypeVar

_UPLOAD, _UNPACKED = "upload_", "unpacked_"
MAX_AGE_SECONDS = 600  # our choice: unused files are deleted after this time
_FREE_BYTES = 16 << 20  # our choice: disk space that uploads leave free
MAX_WAIT_SECONDS = 3600  # our choice: the same for files of queued requests


class Uploads:
    """The folder of uploaded files.

    Gradio names files by their content, so identical uploads share a path. Here each upload gets a folder
    with a random name, so that only its client can name the file.

    Args:
        folder: an empty, private folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: set[Path] = set()
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
            with self._lock:
                self._waiting.difference_update(paths)

    def keep(self, paths: Iterable[Path]) -> None:
        """Mark uploads as queued, which delays their expiry; other paths are ignored."""
        uploads = [path for path in paths if self.contains(path)]
        with self._lock:
            self._waiting.update(uploads)

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
        now = now or time.time()
        with self._lock:
            self._waiting = {path for path in self._waiting if path.exists()}
            waiting = {path.parent for path in self._waiting}

        def is_expired(path: Path) -> bool:
            age = MAX_WAIT_SECONDS if path in waiting else MAX_AGE_SECONDS
            return not path.name.startswith(_UNPACKED) and path.lstat().st_mtime < now - age

        self._delete(is_expired)

    def _delete(self, chosen: Callable[[Path], bool]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in list(self.folder.iterdir()):
            with suppress(OSError):  # already deleted
                if chosen(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


_MAX_ITEMS = 200  # our choice: concurrent users; an image takes up to a megabyte

T = TypeVar("T")


class TTLCache(Generic[T]):
    """Values by random key, dropped `MAX_AGE_SECONDS` after their last use.

    Gradio's own state expires an hour after its page was closed.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._lock = Lock()

    def put(self, value: T) -> str:
        """Store a value and return its key."""
        name = secrets.token_hex(16)
        with self._lock:
            self._values[name] = time.monotonic(), value
            while len(self._values) > _MAX_ITEMS:
                self._values.popitem(last=False)
        return name

    def get(self, name: str | None) -> T | None:
        """Return a value, or `None` if it has expired."""
        with self._lock:
            if name is None or name not in self._values:
                return None
            _, value = self._values.pop(name)
            self._values[name] = time.monotonic(), value
            return value

    def drop(self, name: str | None) -> None:
        """Remove a value."""
        with self._lock:
            self._values.pop(name or "", None)

    def expire(self, now: float | None = None) -> None:
        """Remove expired values.

        Args:
            now: current time, as from `time.monotonic`.
        """
        oldest = (now or time.monotonic()) - MAX_AGE_SECONDS
        with self._lock:
            for name in [name for name, (used, _) in self._values.items() if used < oldest]:
                del self._values[name]
