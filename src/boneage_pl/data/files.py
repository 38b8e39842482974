"""The files below a folder. Imports nothing heavy."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


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
