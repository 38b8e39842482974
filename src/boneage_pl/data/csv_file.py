"""Read a .csv as it is found: any usual separator, encoding and line end."""

import csv
import warnings
from pathlib import Path

import pandas as pd

from boneage_pl.errors import BoneageError

_SEPARATORS = (",", ";", "\t", "|")
_LONGEST_HEADER = 10_000  # characters: what has no line end before that is no table


def header(path: Path, needed: list[str]) -> list[str]:
    """Return the column names of a file, in lower case; none where it cannot be read."""
    try:
        return _columns(_first_line(path), _separator(path, needed))
    except OSError:
        return []


def read_rows(path: Path, needed: list[str]) -> pd.DataFrame:
    """Read the columns `needed` as text; the index is the line, as an editor counts lines in plain tables.

    Separated by commas, or by what makes those columns of the header: semicolons, tabs or bars, as
    spreadsheets write. UTF-8 or UTF-16, with or without a byte order mark; quoted or not.

    Raises:
        BoneageError: no table, or one of the columns occurs more than once.
    """
    try:
        with warnings.catch_warnings():
            # a comma at the end of every line is an empty column too many, which nobody misses
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            raw = pd.read_csv(
                path,
                sep=_separator(path, needed),
                dtype=str,
                encoding=_encoding(path),
                encoding_errors="replace",
                keep_default_na=False,
                index_col=False,
                skip_blank_lines=False,  # they count
            )
    except (ValueError, OSError, csv.Error, OverflowError) as error:
        raise BoneageError(f"{path} cannot be read as a table: {error}") from error
    raw = raw.fillna("").rename(columns=_plain)
    if twice := [name for name in needed if list(raw.columns).count(name) > 1]:
        raise BoneageError(f"{path} has more than one column called {twice[0]}. Rename or remove the others.")
    if lost := [name for name in needed if name not in raw]:
        raise BoneageError(f"{path} cannot be read as a table: its header lacks {', '.join(lost)}.")
    raw.index += 2  # the header is line 1
    blank = (raw == "").all(axis=1)
    return raw.loc[~blank, needed].apply(lambda column: column.str.strip())


def _separator(path: Path, needed: list[str]) -> str:
    line = _first_line(path)
    fitting = (mark for mark in _SEPARATORS if set(needed) <= set(_columns(line, mark)))
    return next(fitting, ",")


def _columns(line: str, separator: str) -> list[str]:
    return [_plain(name) for name in line.split(separator)]


def _plain(name: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(name).strip().strip('"').lower())


def _first_line(path: Path) -> str:
    with path.open(encoding=_encoding(path), errors="replace") as file:
        return file.readline(_LONGEST_HEADER)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
