"""Files that are there whole or not at all. Imports nothing heavy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
