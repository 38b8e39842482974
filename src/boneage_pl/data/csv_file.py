"""Read a table as it is found: .csv with any usual separator, encoding and line end, or .xlsx."""

import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

from boneage_pl.errors import BoneageError

_SEPARATORS = (",", ";", "\t", "|")
_LONGEST_HEADER = 10_000  # characters: what has no line end before that is no table


Understand = Callable[
    [list[str]], dict[str, str] | None
]  # column names → column by meaning, see `recognised`


def header(path: Path, understand: Understand) -> list[str]:
    """Return the column names of a file, in lower case; none where it cannot be read."""
    try:
        if path.suffix.lower() == ".xlsx":
            return [_plain(name) for name in _read_excel(path, nrows=0).columns]
        return _columns(_first_line(path), _separator(path, understand))
    except (OSError, BoneageError):
        return []


def read_rows(path: Path, understand: Understand) -> pd.DataFrame:
    """Read the columns that are understood as text, each under its meaning.

    A .csv may be separated by commas, or by what makes those columns of its header: semicolons, tabs or
    bars, as spreadsheets write; in UTF-8 or UTF-16, with or without a byte order mark; quoted or not. An
    .xlsx needs the extra `xlsx`; its first sheet is read.

    Returns:
        A row a line that is not blank; the index is the line, as an editor counts lines in plain tables.

    Raises:
        BoneageError: no table, or one of the columns is missing or occurs more than once.
    """
    raw = _read_excel(path) if path.suffix.lower() == ".xlsx" else _read_csv(path, understand)
    raw = raw.fillna("").rename(columns=_plain)
    meanings = understand(list(raw.columns))
    if meanings is None:
        raise BoneageError(
            f"{path} cannot be read as a table: its columns are {', '.join(raw.columns)[:200]}."
        )
    if twice := [name for name in meanings.values() if list(raw.columns).count(name) > 1]:
        raise BoneageError(f"{path} has more than one column called {twice[0]}. Rename or remove the others.")
    raw = raw[list(meanings.values())].set_axis(list(meanings), axis=1)
    raw.index += 2  # the header is line 1
    return raw.loc[(raw != "").any(axis=1)].apply(lambda column: column.str.strip())


def _read_csv(path: Path, understand: Understand) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # a comma at the end of every line is an empty column too many, which nobody misses
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                sep=_separator(path, understand),
                dtype=str,
                encoding=_encoding(path),
                encoding_errors="replace",
                keep_default_na=False,
                index_col=False,
                skip_blank_lines=False,  # they count
            )
    except (ValueError, OSError, csv.Error, OverflowError) as error:
        raise BoneageError(f"{path} cannot be read as a table: {error}") from error


def _read_excel(path: Path, nrows: int | None = None) -> pd.DataFrame:
    try:
        return pd.read_excel(path, dtype=str, nrows=nrows, keep_default_na=False)
    except ImportError as error:
        raise BoneageError(f"{path}: .xlsx needs an extra: pip install 'boneage_pl[xlsx]'") from error
    except (ValueError, OSError, KeyError, BadZipFile) as error:
        raise BoneageError(f"{path} cannot be read as a table: {error}") from error


def _separator(path: Path, understand: Understand) -> str:
    line = _first_line(path)
    fitting = (mark for mark in _SEPARATORS if understand(_columns(line, mark)))
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
