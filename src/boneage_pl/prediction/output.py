"""Write predictions as CSV and to the console."""

import csv
import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.types import QUALITY_FLAGS, Prediction

COLUMNS = list(Prediction("").to_dict())
# Predictions; our choice: with more, a summary is printed at the end.
MAX_CONSOLE_LINES = 10

_ESCAPED = "backslashreplace"  # file names are bytes, not always UTF-8

T = TypeVar("T")


def prediction_cells(prediction: Prediction) -> list[str]:
    """Format a row of the table: numbers with three decimals, lists joined by semicolons."""
    return [_cell(value) for value in prediction.to_dict().values()]


def format_prediction(prediction: Prediction, level: float) -> str:
    """Format a prediction as a line of text."""
    text = f"no prediction: {prediction.error}"
    if prediction.months is not None:
        text = f"{prediction.years_months} ({prediction.months:.1f} months)"
        if prediction.lower is not None:
            text += f", {100 * level:g} % between {prediction.lower:.0f} and {prediction.upper:.0f}"
        if prediction.chronological_age is not None:
            text += f"; {prediction.chronological_age:.0f} months old, {prediction.age_difference:+.0f}"
        if prediction.age_difference_sd is not None:
            text += f" ({prediction.age_difference_sd:+.1f} SD)"
    sex = f" ({prediction.sex})" if prediction.sex else ""
    flags = f"  [{', '.join(prediction.flags)}]" if prediction.flags else ""
    return f"{prediction.path}{sex}: {text}{flags}"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ";".join(value)
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


class PredictionWriter:
    """Writes and counts predictions.

    Args:
        table: file for CSV rows, or `None`.
        lines: file for lines of text, or `None`.
        level: coverage of the intervals.
    """

    def __init__(self, table: TextIO | None, lines: TextIO | None, level: float = 0.9) -> None:
        self.table, self.lines, self.level = table, lines, level
        self.flags: Counter[str] = Counter()
        self.predicted = self.failed = 0

    def write(self, prediction: Prediction) -> None:
        """Write a prediction, after the header if it is the first."""
        if self.table:
            rows = csv.writer(self.table, lineterminator="\n")
            if not self.predicted + self.failed:
                rows.writerow(COLUMNS)
            rows.writerow(prediction_cells(prediction))
            self.table.flush()  # not lost if the process ends
        if self.lines:
            tqdm.write(format_prediction(prediction, self.level), self.lines)
        self.flags.update(prediction.flags)
        self.failed += bool(prediction.error)
        self.predicted += not prediction.error

    def summary(self, results: Iterable[T]) -> Iterator[T]:
        """Yield the results, with a progress bar on a terminal, then print a summary to standard error."""
        start = time.perf_counter()
        terminal = sys.stderr.isatty()
        yield from tqdm(
            results, unit=" images", disable=not terminal, dynamic_ncols=True, leave=False, delay=2
        )
        for name, count in self.flags.most_common():
            print(f"{name} ({count}): {QUALITY_FLAGS[name]}", file=sys.stderr)
        total = self.predicted + self.failed
        if total > MAX_CONSOLE_LINES:
            rate = total / (time.perf_counter() - start)
            failed = f", {self.failed} failed" if self.failed else ""
            print(f"{self.predicted} predicted{failed}; {rate:.1f} images/s", file=sys.stderr)


@contextmanager
def open_writer(out: Path | None, level: float = 0.9) -> Iterator[PredictionWriter]:
    """Open a writer to the file `out` or standard output; on a terminal it prints lines of text.

    Raises:
        BoneAgeError: the file has another suffix, exists, or cannot be written.
        SystemExit: the reader has closed the pipe, as after `| head`.
    """
    if out is not None and out.suffix.lower() != ".csv":
        raise BoneAgeError(f"out={out}: predictions are written as CSV; the name must end with .csv.")
    terminal = sys.stdout.isatty()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors=_ESCAPED)
    lines = sys.stdout if terminal else None
    try:
        if out is None:
            yield PredictionWriter(None if terminal else sys.stdout, lines, level)
            sys.stdout.flush()
            return
        with _open_table(out) as table:
            yield PredictionWriter(table, lines, level)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again on exit
        sys.exit(141)  # exit status of SIGPIPE in shells


@contextmanager
def _open_table(out: Path) -> Iterator[TextIO]:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        file = out.open("x", encoding="utf-8", errors=_ESCAPED, newline="")
    except FileExistsError:
        raise BoneAgeError(f"out={out} exists already and is not overwritten. Give another name.") from None
    except OSError as error:
        raise BoneAgeError(f"out={out} cannot be written: {error.strerror}.") from error
    try:
        with file:
            yield file
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise BoneAgeError(f"out={out}: {error.strerror}; the rows written so far are kept.") from error
    except BaseException:
        if out.stat().st_size == 0:  # nothing written: the same command can run again
            out.unlink()
        raise
