"""Expand files, folders, patterns and tables to prediction requests."""

import glob
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from boneage_pl.data.images.dicom import is_dicom
from boneage_pl.data.images.radiograph import SUFFIXES
from boneage_pl.data.tables.columns import map_columns
from boneage_pl.data.tables.load import match_images
from boneage_pl.data.tables.parse import read_rows
from boneage_pl.data.tables.spec import default_conventions
from boneage_pl.data.tables.validate import parse_sexes
from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.types import PredictionRequest
from boneage_pl.utils.files import expand_path, filter_by_suffix, iter_files

_PATHS = {"path", "filepath", "imagepath", "imagefile"}  # without case, blanks and underscores


def requests_from_table(table: Path, male: Any) -> list[PredictionRequest]:
    """Return a prediction request for each row of a table.

    A column of paths (`path`) is read as such, relative to the table's folder or the working one; else one of
    ids (see `boneage_pl.data.tables.columns`) is matched with the images below the table's folder. A column
    of the sex is used where there is one, and `male` where it is empty or there is none. A row that cannot be
    used becomes a request with its error.

    Raises:
        BoneAgeError: it cannot be read, has no rows, or neither column.
    """
    raw = read_rows(table, lambda cells: bool(_path_column(cells)) or "id" in _map_header(cells))
    if raw.empty:
        raise BoneAgeError(f"{table}: it has no rows.")
    header = list(raw.columns)
    meant, paths = _map_header(header), _path_column(header)
    if not paths and "id" not in meant:
        raise BoneAgeError(
            f"{table}: no column is recognized as a path or an id; there are {', '.join(header)[:300]}.\n"
            "Call the column of the files path, or that of the ids id; and the one of the sexes sex (F or M)."
        )
    rows = _requests_by_path(raw[paths[0]], table) if paths else _requests_by_id(raw[meant["id"]], table)
    values = _sexes(raw[meant["male"]], meant["male"]) if "male" in meant else [None] * len(raw)
    return [
        PredictionRequest(where, male if sex is None else sex, error)
        if not isinstance(sex, str) or sex == "unknown"
        else PredictionRequest(where, None, sex)
        for (where, error), sex in zip(rows, values, strict=True)
    ]


def _map_header(header: list[str]) -> dict[str, str]:
    try:
        return map_columns(header).of
    except BoneAgeError:  # two columns could be one thing that is not needed here
        return {name: name for name in header if name.lower() == "id"}


def _path_column(header: list[str]) -> list[str]:
    return [name for name in header if "".join(filter(str.isalnum, name.lower())) in _PATHS]


def _sexes(cells: pd.Series, name: str) -> list[Any]:
    """Return a boolean for each cell, `None` for an empty one, `unknown`, or words on what is no sex."""
    male = parse_sexes(cells)
    if name.lower() == "female":
        male = male.map({True: False, False: True})
    return [
        bool(value) if isinstance(value, bool) else _missing_sex_error(cell)
        for cell, value in zip(cells, male.astype(object).where(male.notna(), None), strict=True)
    ]


def _missing_sex_error(cell: str) -> str | None:
    word = cell.strip().lower()
    if word in ("", "?"):
        return None
    return (
        "unknown" if word in ("unknown", "u", "o", "x") else f"its sex is none of F, M, unknown: {cell[:40]}"
    )


def _requests_by_path(cells: pd.Series, table: Path) -> list[tuple[Path, str]]:
    rows = []
    for cell in cells:
        beside = table.parent / cell
        path = beside if os.path.exists(beside) or not os.path.exists(cell) else Path(cell)  # noqa: PTH110
        rows.append((path, "" if cell else "its path is empty"))
    return rows


def _requests_by_id(cells: pd.Series, table: Path) -> list[tuple[Path, str]]:
    ids = list(dict.fromkeys(cell for cell in cells if cell))
    matches, _ = match_images(ids, filter_by_suffix(list(iter_files(table.parent)), SUFFIXES))
    rows = []
    for cell in cells:
        paths = matches.get(cell, [])
        error = "" if len(paths) == 1 else "several files are called like it" if paths else ""
        if not paths:
            error = f"no image below {table.parent} is called like it"
        rows.append((Path(paths[0]) if paths else Path(cell), error))
    return rows


SEXES = {"F": False, "M": True, "UNKNOWN": "unknown"}
_NOT_IMAGES = (f"{os.sep}DICOMDIR", ".sr.dcm")  # an archive's index, and reports of ours
_HEAD = 132  # bytes that tell DICOM


def parse_sex(sex: Any) -> Any:
    """Return what `sex` says: a boy `True`, a girl `False`, `unknown`, or `None` where it says nothing.

    Raises:
        BoneAgeError: it is none of these.
    """
    if sex is None or isinstance(sex, bool):
        return sex
    try:
        return SEXES[str(sex).strip().upper()]
    except KeyError:
        raise BoneAgeError(f"sex={sex}: it is F, M or unknown.") from None


def expand_inputs(images: Iterable[str], sex: Any = None) -> Iterator[PredictionRequest]:
    """Return prediction requests, in the order of names; a table's rows in its order.

    Args:
        images: files, folders (with all below), patterns such as `hands/*.png`, and tables with a column of
            paths or ids.
        sex: of all of them, where no table says otherwise: F, M or unknown; `None` where the files say.

    Raises:
        BoneAgeError: a name under which there is nothing, or a table that cannot be read.
    """
    male = parse_sex(sex)
    names = [(name, expand_path(str(name))) for name in images]
    if not names:
        raise BoneAgeError("images=[]: name a file, a folder, a pattern or a table.")
    return chain.from_iterable([_expand_one(str(name), path, male) for name, path in names])


def _expand_one(name: str, path: Path, male: Any) -> Iterable[PredictionRequest]:
    if os.path.isdir(path):  # noqa: PTH112 — a Path raises where a name is too long
        listed = _images_below(path)
        first = next(listed, None)
        if first is None:
            there = ", ".join(SUFFIXES)
            raise BoneAgeError(f"images={name}: no radiograph in it ({there}, DICOM by any name).")
        return _chained(first, listed, male)
    if path.suffix.lower() in default_conventions().table_suffixes and os.path.isfile(path):  # noqa: PTH113
        from boneage_pl.prediction.inputs import requests_from_table  # imports pandas

        return requests_from_table(path, male)
    if os.path.lexists(path):
        return [PredictionRequest(path, male)]
    matching = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 — a pattern may be absolute
    if not matching:
        raise BoneAgeError(f"images={name}: there is no such file or folder, and nothing matches it.")
    files = [Path(file) for file in matching if not Path(file).is_dir()]
    return [PredictionRequest(file, male) for file in files]


def _chained(first: Path, rest: Iterator[Path], male: Any) -> Iterator[PredictionRequest]:
    yield PredictionRequest(first, male)
    for path in rest:
        yield PredictionRequest(path, male)


def _images_below(folder: Path) -> Iterator[Path]:
    for path in iter_files(folder):
        if path.endswith(_NOT_IMAGES):
            continue
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 — thousands of Paths take seconds
        if suffix in SUFFIXES or looks_like_dicom(path):
            yield Path(path)


def looks_like_dicom(path: str) -> bool:
    """Whether a file is DICOM that is called otherwise: archives export them by number or UID."""
    try:
        if not Path(path).is_file():  # a pipe would be waited for
            return False
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return len(head) == _HEAD and is_dicom(head) and head[128:] == b"DICM"
