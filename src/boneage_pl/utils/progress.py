"""Progress bar on a terminal, a line otherwise."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(steps: Iterable[T], total: int, doing: str, unit: str = "images", done: int = 0) -> Iterator[T]:
    """Yield `steps` with a progress bar on a terminal, otherwise with a line at the end.

    Args:
        steps: to iterate over.
        total: number of steps including `done`.
        doing: description, such as "drawing data/phantom".
        unit: of a step.
        done: steps done before.
    """
    if sys.stderr.isatty():
        yield from tqdm(steps, doing, total, initial=done, unit=f" {unit}", dynamic_ncols=True)
        return
    start, initial = time.perf_counter(), done
    for step in steps:
        yield step
        done += 1
    if done > initial:
        rate = (done - initial) / (time.perf_counter() - start)
        print(f"{doing}: {done} of {total} {unit}, {rate:.1f}/s", file=sys.stderr, flush=True)
