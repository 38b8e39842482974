"""Read CSV and XLSX label tables as text."""

import codecs
import csv
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

from boneage_pl.errors import BoneAgeError

SPREADSHEETS = {".xlsx", ".xlsm"}
_SEPARATORS = (",", ";", "\t", "|")
_SNIFF_BYTES = 2**16  # bytes that tell the encoding
_HEADER_LINES = 30  # a spreadsheet's own lines come before the header: a title, a date, a blank, "sep=;"
_MAX_LINE = 10_000  # characters: what has no line end before that is no table
_EXTRA = "reading .xlsx needs an extra: pip install 'boneage_pl[xlsx]'; or save it as .csv"


IsHeader = Callable[[list[str]], bool]  # whether a row's cells are the header of a table of bone ages


def read_rows(path: Path, is_header: IsHeader) -> pd.DataFrame:
    """Read a table as text, under its own header and without what stands above it.

    Text may be separated by commas, or by what makes `is_header` of a line: semicolons, tabs or bars, as
    spreadsheets write; in UTF-8, UTF-16 or Windows' western letters, with or without a byte order mark;
    quoted or not. A spreadsheet needs the extra `xlsx`; the first of its sheets with such a header is read.

    Returns:
        A row a line that is not blank; the index is the line, as an editor counts lines in plain tables.
        Where no line is a header, the first that is not blank is taken for it.

    Raises:
        BoneAgeError: it is no table.
    """
    raw, line = (
        _read_spreadsheet(path, is_header)
        if path.suffix.lower() in SPREADSHEETS
        else _read_text(path, is_header)
    )
    raw = raw.fillna("")
    raw.index += line + 1  # lines are counted from 1, and the header's number is one less
    return raw.loc[(raw != "").any(axis=1)].apply(lambda column: column.map(_clean_cell))


def read_header(path: Path, is_header: IsHeader) -> list[str]:
    """Return the header of a file; nothing where text cannot be read.

    Raises:
        BoneAgeError: a spreadsheet that cannot be read, or what reads them is not installed.
    """
    try:
        if path.suffix.lower() in SPREADSHEETS:
            return list(_read_spreadsheet(path, is_header)[0].columns)
        return _split_line(*_find_header(_first_lines(path), is_header)[1:])
    except OSError:
        return []


def _read_text(path: Path, is_header: IsHeader) -> tuple[pd.DataFrame, int]:
    try:
        number, line, separator = _find_header(_first_lines(path), is_header)
        with warnings.catch_warnings():
            # a comma at the end of every line is an empty column too many, which nobody misses
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            raw = pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                encoding=_detect_encoding(path),
                encoding_errors="replace",
                keep_default_na=False,
                index_col=False,
                skiprows=number,
                skip_blank_lines=False,  # they count
            )
    except (ValueError, OSError, csv.Error, OverflowError) as error:
        raise BoneAgeError(f"{path} cannot be read as a table: {error}") from error
    names = _split_line(line, separator)
    # pandas makes repeated names different: id, id.1
    return raw.set_axis(
        (names + [str(c) for c in raw.columns[len(names) :]])[: raw.shape[1]], axis=1
    ), number + 1


def _read_spreadsheet(path: Path, is_header: IsHeader) -> tuple[pd.DataFrame, int]:
    try:
        sheets = pd.read_excel(path, sheet_name=None, header=None, dtype=str, keep_default_na=False)
    except ImportError as error:
        raise BoneAgeError(f"{path}: {_EXTRA}.") from error
    except (ValueError, OSError, KeyError, TypeError, SyntaxError, BadZipFile) as error:
        raise BoneAgeError(f"{path} cannot be read as a table: {error}") from error
    headers = [
        (sheet, number)
        for sheet in sheets.values()
        for number in range(min(len(sheet), _HEADER_LINES))
        if is_header([_normalize_cell_name(cell) for cell in sheet.iloc[number]])
    ]
    sheet, number = headers[0] if headers else (next(iter(sheets.values())), 0)
    if sheet.empty:
        return pd.DataFrame(), 1
    rows = sheet.iloc[number + 1 :].reset_index(drop=True)
    return rows.set_axis([_normalize_cell_name(cell) for cell in sheet.iloc[number]], axis=1), number + 1


def _find_header(lines: list[str], is_header: IsHeader) -> tuple[int, str, str]:
    """Return the header's number from 0, the line itself, and its separator."""
    for number, line in enumerate(lines):
        for mark in _SEPARATORS:
            if is_header(_split_line(line, mark)):
                return number, line, mark
    number = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("sep=")), 0)
    line = lines[number] if lines else ""
    return number, line, max(_SEPARATORS, key=line.count)


def _split_line(line: str, separator: str) -> list[str]:
    try:
        return [
            _normalize_cell_name(cell) for cell in next(csv.reader(StringIO(line), delimiter=separator), [])
        ]
    except csv.Error:
        return []


def _normalize_cell_name(name: object) -> str:
    """Return a header's cell as it can be printed."""
    return "".join(c if c.isprintable() else "?" for c in str(name).strip().strip("'\"").strip())


def _clean_cell(cell: str) -> str:
    """Return a cell without blanks, and without what spreadsheets put around text: ="1377", '1377."""
    cell = cell.strip()
    if cell.startswith('="') and cell.endswith('"'):
        return cell[2:-1]
    return cell.removeprefix("'").strip('"')


def _first_lines(path: Path) -> list[str]:
    with path.open(encoding=_detect_encoding(path), errors="replace") as file:
        return [file.readline(_MAX_LINE) for _ in range(_HEADER_LINES)]


def _detect_encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_SNIFF_BYTES)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if 0 in head[:2]:
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    try:
        codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # the last letter may be cut in two
    except UnicodeDecodeError:
        return "cp1252"  # what spreadsheets of western languages write
    return "utf-8-sig"
