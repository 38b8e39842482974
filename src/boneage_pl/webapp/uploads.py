"""Uploaded files and the images of a session, and when they are deleted."""

import secrets
import shutil
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Generic, TypeVar

_ROOM = "unpacked_"
MAX_AGE_SECONDS = 600  # seconds; our choice: unused files are deleted after that


class Uploads:
    """The folder of uploads, with a use count for each file.

    Gradio stores identical files under one path, so a file is deleted only after the last request that
    uses it.

    Args:
        folder: empty, and nobody else's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, paths: Iterable[str]) -> None:
        """Take note of files that are there now."""
        with self._lock:
            self._waiting.update(paths)

    @contextmanager
    def release(self, paths: Iterable[Path]) -> Iterator[None]:
        """Delete uploads at the end of the block, but for those that somebody else waits for."""
        try:
            yield
        finally:
            for path in paths:
                self._let_go(path)

    def contains(self, path: Path) -> bool:
        """Whether a path is that of an upload."""
        with suppress(OSError, ValueError):
            return path.resolve().is_relative_to(self.folder.resolve()) and path.is_file()
        return False

    @contextmanager
    def room(self) -> Iterator[Path]:
        """Yield a folder for what is unpacked; it is deleted at the end."""
        with TemporaryDirectory(prefix=_ROOM, dir=self.folder) as folder:
            yield Path(folder)

    def delete_expired(self, now: float | None = None) -> None:
        """Delete abandoned uploads, and partial files that were too large.

        Args:
            now: the time, as `time.time` gives it.
        """
        before = (now or time.time()) - MAX_AGE_SECONDS
        for path in list(self.folder.iterdir()):
            with suppress(OSError):  # somebody else was faster
                if path.name.startswith(_ROOM) or path.lstat().st_mtime >= before:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        with self._lock:
            self._waiting = Counter({path: n for path, n in self._waiting.items() if Path(path).exists()})

    def _let_go(self, path: Path) -> None:
        with self._lock:
            self._waiting[str(path)] -= 1
            if self._waiting[str(path)] > 0:
                return
            del self._waiting[str(path)]
            with suppress(OSError):
                path.unlink()
                path.parent.rmdir()  # one of its own, called by a checksum


_MAX_ITEMS = 200  # our choice: people who look at once; each picture takes up to a megabyte

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
