"""What is kept in memory of the pictures that people look at: the newest, and not for long."""

import secrets
import time
from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

from boneage_pl.page.uploads import MAX_AGE_SECONDS

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
        """Drop what nobody has asked for.

        Args:
            now: the time, as `time.monotonic` gives it.
        """
        before = (now or time.monotonic()) - MAX_AGE_SECONDS
        with self._lock:
            for name in [name for name, (used, _) in self._values.items() if used < before]:
                del self._values[name]
