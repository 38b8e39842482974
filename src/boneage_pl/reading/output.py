"""Answers on their way out: a table for programs, lines for people, a bar for the impatient. No torch."""

import csv
import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from tqdm import tqdm

from boneage_pl.errors import BoneageError
from boneage_pl.reading.answer import FLAGS, Answer

COLUMNS = ["path", "sex", "months", "years_months", "low", "high", "flags", "error", "age", "notes", "spread"]
FEW = 10  # answers; our choice: what a flag means is said beside so many, and once at the end of more

T = TypeVar("T")


def cells(answer: Answer) -> list[str]:
    """Return an answer as a row of the table: months with three decimals, lists joined by semicolons."""
    return [
        answer.path,
        answer.sex,
        _number(answer.months),
        answer.years_months,
        _number(answer.low),
        _number(answer.high),
        ";".join(answer.flags),
        answer.error,
        _number(answer.age),
        ";".join(answer.notes),
        _number(answer.spread),
    ]


def line(answer: Answer, level: float) -> str:
    """Return an answer as a person reads it."""
    name = f"{answer.path}{f' ({answer.sex})' if answer.sex else ''}"
    if answer.months is None:
        said = f"no answer: {answer.error}"
    else:
        said = f"{answer.years_months} ({answer.months:.1f} months)"
        if answer.low is not None and answer.high is not None:
            said += f", {level:.0%} between {answer.low:.0f} and {answer.high:.0f}"
        if answer.age is not None:
            said += f"; {answer.age:.0f} months old"
    doubts = f"  [{', '.join(answer.flags)}]" if answer.flags else ""
    return f"{name}: {said}{doubts}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


class Output:
    """Writes each answer as it comes, and counts.

    Args:
        table: where rows go; `None` for lines on a terminal alone.
        lines: where lines go; `None` where nobody reads them.
        level: of the answers' intervals.
    """

    def __init__(self, table: TextIO | None, lines: TextIO | None, level: float = 0.9) -> None:
        self.table, self.lines = table, lines
        self.rows = csv.writer(table, lineterminator="\n") if table else None
        self.level = level
        self.flags: Counter[str] = Counter()
        self.answered = self.unanswered = 0
        self._head = False

    def write(self, answer: Answer) -> None:
        """Write an answer."""
        if self.rows and self.table:
            if not self._head:
                self.rows.writerow(COLUMNS)
                self._head = True
            self.rows.writerow(cells(answer))
            self.table.flush()  # what is answered is there, whatever comes
        if self.lines:
            tqdm.write(line(answer, self.level), self.lines)
        self.flags.update(answer.flags)
        if answer.error:
            self.unanswered += 1
        else:
            self.answered += 1

    def counted(self, readings: Iterable[T]) -> Iterator[T]:
        """Yield what comes, under a bar on a terminal; at the end say on standard error what it was."""
        start = time.perf_counter()
        shown = sys.stderr.isatty()
        yield from tqdm(readings, unit=" images", disable=not shown, dynamic_ncols=True, leave=False, delay=2)
        for name, count in self.flags.most_common():
            print(f"{name} ({count}): {FLAGS[name]}", file=sys.stderr)
        total = self.answered + self.unanswered
        if total > FEW:
            rate = total / (time.perf_counter() - start)
            lost = f", {self.unanswered} not" if self.unanswered else ""
            print(f"{self.answered} answered{lost}; {rate:.1f} a second", file=sys.stderr)


@contextmanager
def output_of(out: Path | None, level: float = 0.9) -> Iterator[Output]:
    """Open where answers go: the file `out`, or standard output; lines go to a terminal.

    Raises:
        BoneageError: the file is there already, or cannot be written.
        SystemExit: nobody reads any more, as after `| head`.
    """
    terminal = sys.stdout.isatty()
    try:
        if out is None:
            yield Output(None, sys.stdout, level) if terminal else Output(sys.stdout, None, level)
            sys.stdout.flush()
            return
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            file = out.open("x", encoding="utf-8", newline="")
        except FileExistsError:
            raise BoneageError(f"out={out} is there already, and nothing is written over.") from None
        except OSError as error:
            raise BoneageError(f"out={out} cannot be written: {error.strerror}.") from error
        try:
            with file:
                yield Output(file, sys.stdout if terminal else None, level)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise BoneageError(f"out={out}: {error.strerror}; what was written of it is kept.") from error
        except BaseException:
            if out.stat().st_size == 0:  # nothing was answered: the same command may begin again
                out.unlink()
            raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(141)  # as shells have it for SIGPIPE
