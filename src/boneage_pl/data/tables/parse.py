"""Read CSV and XLSX label tables as text."""

import csv
import logging
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

import pandas as pd

from boneage_pl.data.tables.columns import NotALabelTableError, check_columns, find_columns
from boneage_pl.data.tables.spec import DatasetSpec, format_options
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.optional import import_optional

log = logging.getLogger(__name__)
_DELIMITERS = ",;\t|"
_HEADER_ROWS = 30  # our choice: rows above the header, such as titles, dates and blanks
_MAX_BYTES = 100 << 20  # our choice
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"

Row = tuple[int, list[str]]  # line or row of the file, from 1; cells


@dataclass(frozen=True)
class LabelTable:
    """A label table as text.

    Args:
        path: of the file.
        rows: cells under the header; the index is the line in the file, from 1.
        columns: column names by role, see `find_columns`.
        spec: options for reading it.
    """

    path: Path
    rows: pd.DataFrame
    columns: dict[str, list[str]]
    spec: DatasetSpec

    @property
    def flag(self) -> str:
        """The sex that 1 and true mean."""
        return "female" if self.columns["female"] else "male"


def read_label_table(path: Path, spec: DatasetSpec, *, ages: bool) -> LabelTable:
    """Read a label table as text, without rows above the header.

    Delimiters are commas, semicolons, tabs or bars, the encoding UTF-8 or UTF-16. Spreadsheets need the extra
    `xlsx`.

    Args:
        path: CSV or XLSX file.
        spec: options for reading it.
        ages: whether bone ages and sexes are required; otherwise only ids.

    Raises:
        NotALabelTableError: not a label table.
        BoneAgeError: several sheets are tables, or required cells are not UTF-8.
    """
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:  # a pipe would block
            raise NotALabelTableError(f"{path} is not a regular file of at most {_MAX_BYTES >> 20} MB.")
        content = path.read_bytes()
    except OSError as error:
        raise NotALabelTableError(f"{path} cannot be read: {error.strerror or error}.") from error
    is_spreadsheet = path.suffix.lower() in (".xlsx", ".xlsm")
    if content.startswith(_OLE) or content.startswith(_ZIP) != is_spreadsheet:
        kind = "a spreadsheet" if content.startswith((_ZIP, _OLE)) else "not a spreadsheet"
        raise NotALabelTableError(f"{path} is {kind}. Save it as .csv, or as .xlsx without a password.")
    if spec.sheet is not None and not is_spreadsheet:
        raise NotALabelTableError(f"data.sheet={spec.sheet}: {path} is a text file without sheets.")
    read = _read_spreadsheet if is_spreadsheet else _read_text
    rows, start = read(path, content, spec, ages=ages)
    if not rows[start + 1 :]:
        raise NotALabelTableError(f"{path} has no rows.")
    header = rows[start][1]
    columns = check_columns(path, header, spec, ages=ages)
    cells = {line: row + [""] * (len(header) - len(row)) for line, row in rows[start + 1 :]}
    if longer := [line for line, row in cells.items() if any(row[len(header) :])]:
        raise BoneAgeError(f"{path}: line {longer[0]} has more cells than the header.")
    padded = [row[: len(header)] for row in cells.values()]
    frame = pd.DataFrame(padded, index=list(cells), columns=header, dtype=str)
    for name in columns["id"] + columns["sex"] + (columns["bone_age"] if ages else []):
        if (bad := frame[name].str.contains("\ufffd")).any():
            raise BoneAgeError(
                f"{path}: column {name}, line {frame.index[bad][0]}: characters that are not UTF-8.\n"
                "Save the file as 'CSV UTF-8' or .xlsx."
            )
    return LabelTable(path, frame, columns, spec)


def _find_header(rows: list[Row], spec: DatasetSpec, *, ages: bool) -> int | None:
    for roles in [["id", "bone_age", "sex"]] if ages else [["id", "sex"], ["id"]]:
        for number, (_, cells) in enumerate(rows[:_HEADER_ROWS]):
            found = find_columns(cells, spec)
            if all(found[role] for role in roles):
                return number
    return None


def _read_text(path: Path, content: bytes, spec: DatasetSpec, *, ages: bool) -> tuple[list[Row], int]:
    """Return the rows and the index of the header, 0 if there is none."""
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text, readings = content.decode(encoding, "replace"), []
    for delimiter in _DELIMITERS:
        rows, error = _split_rows(text, delimiter)
        start = _find_header(rows, spec, ages=ages)
        if start is not None and error:
            raise BoneAgeError(f"{path} cannot be read completely: {error}.")
        if start is not None:
            return rows, start
        readings.append((len(rows[0][1]) if rows else 0, rows, error))
    _, rows, error = max(readings, key=lambda reading: reading[0])
    if error:
        raise NotALabelTableError(f"{path} cannot be read as a table: {error}.")
    return rows, 0


def _split_rows(text: str, delimiter: str) -> tuple[list[Row], str]:
    """Return the non-blank records with their first lines, and the error that ended reading, if any."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    line = 1
    try:
        for record in reader:
            cells = [_clean(cell) for cell in record]
            if any(cells) and not cells[0].startswith("sep="):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        return rows, f"line {line}: {error}"
    return rows, ""


def _read_spreadsheet(path: Path, content: bytes, spec: DatasetSpec, *, ages: bool) -> tuple[list[Row], int]:
    """Return the rows of the sheet with the table and the index of the header."""
    import_optional("openpyxl", f"reading {path}", "xlsx")
    try:
        frames = pd.read_excel(BytesIO(content), sheet_name=None, header=None, dtype=str, na_filter=False)
    except Exception as error:  # openpyxl raises many types for damaged files
        raise NotALabelTableError(
            f"{path} cannot be read as a spreadsheet: {error}.\n"
            "Save it as .csv, or as .xlsx (not Strict Open XML)."
        ) from error
    if spec.sheet is not None:
        if (wanted := str(spec.sheet)) not in frames:
            raise BoneAgeError(f"data.sheet={wanted}: the sheets of {path} are {', '.join(frames)}.")
        frames = {wanted: frames[wanted]}
    sheets = {title: _sheet_rows(frame) for title, frame in frames.items()}
    starts = {title: _find_header(rows, spec, ages=ages) for title, rows in sheets.items()}
    tables = [title for title, start in starts.items() if start is not None]
    if len(tables) > 1:
        raise BoneAgeError(
            f"{path}: the sheets {', '.join(tables)} are all label tables: put all rows on one.\n"
            + format_options(sheet=tables[0])
        )
    title = next((title for title, rows in sheets.items() if rows and title in (tables or sheets)), "")
    for other in [other for other, rows in sheets.items() if rows and other != title]:
        log.info("%s: sheet %s is ignored", path, other)
    return sheets.get(title, []), starts.get(title) or 0


def _sheet_rows(frame: pd.DataFrame) -> list[Row]:
    """Return the non-blank rows of a sheet."""
    rows = [(line, [_clean(cell) for cell in row]) for line, row in enumerate(frame.to_numpy(), 1)]
    return [(line, cells) for line, cells in rows if any(cells)]


def _clean(cell: str) -> str:
    """Normalize a cell to one line, without the text markers of spreadsheets: ="1377", '1377."""
    cell = " ".join(cell.split())
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') else cell.removeprefix("'")
