"""Uploaded files and the images of a session, and when they are deleted."""

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

_OWN, _ROOM = "upload_", "unpacked_"
MAX_AGE_SECONDS = 600  # our choice: unused files are deleted after that
_FREE_BYTES = 16 << 20  # our choice: of the disk that uploads leave free
MAX_WAIT_SECONDS = 3600  # our choice: the same of files that wait in a queue


class Uploads:
    """The folder of uploads.

    Gradio stores identical files under one path, called by their content. Each upload gets a folder of its
    own with a name that nobody can guess, so that only who has dropped a file can name it.

    Args:
        folder: empty, and nobody else's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: set[Path] = set()
        self._arriving = 0
        self._lock = Lock()

    def have_room(self, size: int) -> bool:
        """Whether the disk has room for an upload of `size` bytes."""
        self.folder.mkdir(parents=True, exist_ok=True)  # the system may have swept its temporary folder
        return shutil.disk_usage(self.folder).free > size + _FREE_BYTES

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Delete what Gradio has stored at the end of the block, unless other uploads still arrive."""
        with self._lock:
            self._arriving += 1
        try:
            yield
        finally:
            with self._lock:
                self._arriving -= 1
                if not self._arriving:
                    self._delete(lambda path: not path.name.startswith((_OWN, _ROOM)))

    def claim(self, path: str) -> str:
        """Give a file that has arrived a folder of its own, and return its path there."""
        own = self.folder / f"{_OWN}{secrets.token_hex(16)}"
        own.mkdir(parents=True)
        target = own / Path(path).name
        try:
            os.link(path, target)
        except OSError:  # a disk without links
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
        """Note that uploads wait in a queue: they are not abandoned. Of other paths nothing is noted."""
        uploads = [path for path in paths if self.contains(path)]
        with self._lock:
            self._waiting.update(uploads)

    def contains(self, path: Path) -> bool:
        """Whether a path is that of an upload, see `claim`."""
        with suppress(OSError, ValueError):
            own = path.resolve().parent
            inside = own.parent == self.folder.resolve() and own.name.startswith(_OWN)
            return inside and path.is_file()
        return False

    @contextmanager
    def room(self) -> Iterator[Path]:
        """Yield a folder for what is unpacked; it is deleted at the end."""
        self.folder.mkdir(parents=True, exist_ok=True)  # the system may have swept its temporary folder
        with TemporaryDirectory(prefix=_ROOM, dir=self.folder) as folder:
            yield Path(folder)

    def delete_expired(self, now: float | None = None) -> None:
        """Delete abandoned uploads, and partial files that were too large.

        Args:
            now: the time, as `time.time` gives it.
        """
        now = now or time.time()
        with self._lock:
            self._waiting = {path for path in self._waiting if path.exists()}
            waiting = {path.parent for path in self._waiting}

        def is_abandoned(path: Path) -> bool:
            age = MAX_WAIT_SECONDS if path in waiting else MAX_AGE_SECONDS
            return not path.name.startswith(_ROOM) and path.lstat().st_mtime < now - age

        self._delete(is_abandoned)

    def _delete(self, chosen: Callable[[Path], bool]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in list(self.folder.iterdir()):
            with suppress(OSError):  # somebody else was faster
                if chosen(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


_MAX_ITEMS = 200  # our choice: people who look at once; each image takes up to a megabyte

T = TypeVar("T")


class TTLCache(Generic[T]):
    """Values by a name that cannot be guessed, each for `MAX_AGE_SECONDS` after it was last used.

    Gradio's own state is kept for an hour after its page was closed.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._lock = Lock()

    def put(self, value: T) -> str:
        """Keep a value, and return its name."""
        name = secrets.token_hex(16)
        with self._lock:
            self._values[name] = time.monotonic(), value
            while len(self._values) > _MAX_ITEMS:
                self._values.popitem(last=False)
        return name

    def get(self, name: str | None) -> T | None:
        """Return a value; `None` where it is no longer kept."""
        with self._lock:
            if name is None or name not in self._values:
                return None
            _, value = self._values.pop(name)
            self._values[name] = time.monotonic(), value
            return value

    def drop(self, name: str | None) -> None:
        """Keep a value no longer."""
        with self._lock:
            self._values.pop(name or "", None)

    def expire(self, now: float | None = None) -> None:
        """Drop expired items.

        Args:
            now: the time, as `time.monotonic` gives it.
        """
        before = (now or time.monotonic()) - MAX_AGE_SECONDS
        with self._lock:
            for name in [name for name, (used, _) in self._values.items() if used < before]:
                del self._values[name]
