"""Find the label table in a folder."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from boneage_pl.data.tables.columns import (
    COLUMN_ALIASES,
    ROLE_NAMES,
    RSNA_COLUMNS,
    format_option,
    is_run_output,
    map_columns,
    unmapped_columns_error,
)
from boneage_pl.data.tables.parse import read_header, read_rows
from boneage_pl.data.tables.spec import DatasetSpec
from boneage_pl.data.tables.validate import format_list, parse_sexes
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import filter_by_suffix

_UNSUPPORTED = (".xls", ".ods", ".numbers", ".sav", ".parquet")  # tables of other programs


def find_label_table(place: DatasetSpec, files: list[str], images: list[str]) -> tuple[Path, str]:
    """Return the table of a data set, and a word on others that could have been meant.

    Args:
        place: of the data set.
        files: every file under its folder.
        images: those that are images.

    Raises:
        BoneAgeError: no table, several that could be meant, or one whose columns are not understood.
    """
    if named := place.table_file():
        return named, ""
    # reading a pipe would wait for ever
    candidates = [Path(f) for f in filter_by_suffix(files, place.naming.table_suffixes) if Path(f).is_file()]
    headers, unread = _read_headers(candidates, place)
    tables = [file for file, header in headers.items() if is_header(header, place)]
    if not tables:
        raise _no_table_error(place, headers, unread, files, images)
    chosen = tables
    for name in place.naming.tables:
        if same := [table for table in tables if table.name.lower() == name]:
            chosen = same
            break
    else:  # a table with the very columns of the training table comes before one that means the same
        chosen = [table for table in tables if _has_rsna_columns(headers[table], place)] or tables
    names = [str(table.relative_to(place.root)) for table in chosen]
    if len(chosen) > 1:
        raise BoneAgeError(
            f"{place.root} holds {len(chosen)} tables with {_format_columns(ROLE_NAMES.values())} in each "
            f"row: {format_list(names)}\nSay which: {format_option('data.table', names[0])}"
        )
    unchosen = [str(table.relative_to(place.root)) for table in tables if table not in chosen]
    return chosen[0], f"table: {names[0]}; not {format_list(unchosen)}" if unchosen else ""


def is_header(cells: list[str], place: DatasetSpec) -> bool:
    """Whether a row's cells are the header of a table of bone ages."""
    try:
        return not map_columns(cells, place.columns).missing
    except BoneAgeError:
        return True  # it is one, and says so when it is read


def _has_rsna_columns(header: list[str], place: DatasetSpec) -> bool:
    return {name.lower() for name in _column_roles(header, place).values()} == RSNA_COLUMNS


def _column_roles(header: list[str], place: DatasetSpec) -> dict[str, str]:
    try:
        return map_columns(header, place.columns).of
    except BoneAgeError:
        return {}


def _read_headers(
    candidates: list[Path], place: DatasetSpec
) -> tuple[dict[Path, list[str]], BoneAgeError | None]:
    """Return the header of each table, and why one could not be read."""
    headers: dict[Path, list[str]] = {}
    unread = None
    for file in candidates:
        try:
            header = read_header(file, lambda cells: is_header(cells, place))
        except BoneAgeError as error:
            unread = error
            continue
        if not is_run_output(header):
            headers[file] = header
    return headers, unread


def _no_table_error(
    place: DatasetSpec,
    headers: dict[Path, list[str]],
    unread: BoneAgeError | None,
    files: list[str],
    images: list[str],
) -> BoneAgeError:
    """Say what is missing: a column, what reads a table, the table, or all of it."""
    root = place.root
    known = {file: len(_column_roles(header, place)) for file, header in headers.items() if len(header) > 1}
    tables = [file for file, count in known.items() if count == max(known.values())]
    if len(tables) == 1:
        raw = read_rows(tables[0], lambda cells: is_header(cells, place))
        return BoneAgeError(f"{tables[0]}: {unmapped_columns_error(raw, place.columns, parse_sexes)}")
    if tables:
        listed = [f"{t.relative_to(root)} ({','.join(headers[t])[:60]})" for t in tables[:3]]
        return BoneAgeError(
            f"{root} holds {len(tables)} tables, none with {_format_columns(ROLE_NAMES.values())}: "
            f"{'; '.join(listed)}{' …' if len(tables) > 3 else ''}.\n"
            "Say which, and what its columns are: "
            f"{format_option('data.table', str(tables[0].relative_to(root)))} "
            f"{' '.join(f'data.columns.{name}=<column>' for name in COLUMN_ALIASES)}"
        )
    if unread:
        return unread
    if other := filter_by_suffix(files, _UNSUPPORTED):
        return BoneAgeError(
            f"{other[0]}: {Path(other[0]).suffix} tables are not read. Save it as .csv or .xlsx."
        )
    if images and (above := _find_above(place)):
        return BoneAgeError(
            f"{root} holds {len(images)} images and no table; the table is one level up.\n"
            f"Say so: {format_option('data.root', str(root))} {format_option('data.table', str(above))}"
        )
    looked = f"It holds {len(images)} images and no table with {_format_columns(ROLE_NAMES.values())}"
    if not root.exists():
        looked = "That folder does not exist"
    elif not images:
        looked = f"It holds no table and no image{unsupported_files(files, place)}"
    return BoneAgeError(
        f"No bone-age data in data.root={root} ({root.resolve()}).\n"
        f"{looked}.\n"
        "Get the RSNA 2017 training set from the RSNA Pediatric Bone Age Challenge page (rsna.org) or\n"
        "from Kaggle (kmader/rsna-bone-age), unpack it and pass data.root=<folder> or set BONEAGE_DATA;\n"
        "or run with data=phantom, which draws its own radiographs and downloads nothing."
    )


def _find_above(place: DatasetSpec) -> Path | None:
    """Return the table beside the folder of the images, if there is one alone."""
    parent = place.root.resolve().parent
    beside = sorted(
        f for f in parent.iterdir() if f.suffix.lower() in place.naming.table_suffixes and f.is_file()
    )
    headers, _ = _read_headers(beside, place)
    tables = [file for file, header in headers.items() if is_header(header, place)]
    known = [t for t in tables if t.name.lower() in place.naming.tables]
    tables = known if len(tables) > 1 and known else tables
    return Path(os.path.relpath(tables[0], place.root.resolve())) if len(tables) == 1 else None


def unsupported_files(files: Iterable[str], place: DatasetSpec) -> str:
    """Say which files are left aside: radiographs in another format, or not unpacked."""
    read = {*place.naming.image_suffixes, *place.naming.table_suffixes}
    suffixes = Counter(suffix for f in files if (suffix := Path(f).suffix.lower()) and suffix not in read)
    return "".join(f"; {count} {suffix} files are not read" for suffix, count in suffixes.most_common(2))


def _format_columns(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}"
