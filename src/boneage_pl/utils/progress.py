"""Progress bar in a terminal, lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(steps: Iterable[T], total: int, doing: str, unit: str = "images", done: int = 0) -> Iterator[T]:
    """Yield `steps`: under a bar with rate and time left on a terminal, otherwise with a line at the end.

    Of `total` steps `done` were there before these. `doing` says what happens: "drawing data/phantom".
    """
    if sys.stderr.isatty():
        yield from tqdm(steps, doing, total, initial=done, unit=f" {unit}", dynamic_ncols=True)
        return
    start, before = time.perf_counter(), done
    for step in steps:
        yield step
        done += 1
    if done > before:
        rate = (done - before) / (time.perf_counter() - start)
        print(f"{doing}: {done} of {total} {unit}, {rate:.1f} a second", file=sys.stderr, flush=True)
