"""Expand files, folders, patterns and tables to prediction requests."""

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from boneage_pl.data.images.dicom import is_dicom, non_image_class
from boneage_pl.data.tables.spec import DICOM_SUFFIXES, IMAGE_SUFFIXES, TABLE_SUFFIXES, DatasetSpec
from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.types import PredictionRequest
from boneage_pl.utils.files import expand_path, filter_by_suffix, iter_files

log = logging.getLogger(__name__)
_UNKNOWN = {"unknown", "u", "o", "x"}  # cells for an unknown sex; o is DICOM's "other"
_INVALID = object()  # a cell without a valid sex
_HEAD = 132  # bytes that identify DICOM


def requests_from_table(table: Path, male: Any, spec: DatasetSpec | None = None) -> list[PredictionRequest]:
    """Return a prediction request for each row of a table.

    Ids or paths name images in or below the table's folder, or existing files. Sexes are parsed as in
    training. An invalid row becomes a request with an error.

    Args:
        table: CSV or XLSX file.
        male: sex where the table has none: `True`, `False`, `"unknown"` or `None`.
        spec: options for reading the table; if given, the numbers of girls and boys are logged.

    Raises:
        BoneAgeError: unreadable table, no rows, or unrecognized columns or codes.
    """
    from boneage_pl.data.tables.load import match_images, match_rows  # imports pandas
    from boneage_pl.data.tables.parse import read_label_table
    from boneage_pl.data.tables.validate import parse_sexes

    labels = read_label_table(table, spec or DatasetSpec(table.parent), ages=False)
    images = filter_by_suffix(list(iter_files(table.parent)), IMAGE_SUFFIXES)

    def match(cells: Iterable[str]) -> dict[str, list[str]]:
        files = {cell: [file] for cell in cells if (file := _existing_file(cell, table.parent))}
        return match_images((cell for cell in cells if cell not in files), images) | files

    rows = match_rows(labels, match)
    sexes: list[Any] = [male] * len(rows)
    for name in labels.columns["sex"]:  # at most one
        cells = labels.rows[name].str.casefold()
        unknown = cells.isin(_UNKNOWN.difference(labels.spec.sex_codes()))
        empty = cells.isin(["", "?"])
        parsed = parse_sexes(labels, labels.rows[name].mask(unknown | empty, ""))
        stated = [bool(is_male) if is_male in (True, False) else _INVALID for is_male in parsed]
        sexes = ["unknown" if u else male if e else s for u, e, s in zip(unknown, empty, stated, strict=True)]
        if spec is not None:
            girls, boys = (stated.count(sex) for sex in (False, True))
            log.info("%s: %d girls and %d boys in %d rows by column %s", table, girls, boys, len(rows), name)
    requests = []
    for cell, paths, sex in zip(rows["cell"], rows["paths"], sexes, strict=True):
        error = "invalid sex: use F, M or unknown" if sex is _INVALID else ""
        if len(paths) != 1:
            error = "several files have this name" if paths else "no file has this name"
        if not cell:
            error = "its path is empty"
        image = Path(paths[0] if paths else cell)
        requests.append(PredictionRequest(image, None if sex is _INVALID else sex, error))
    return requests


def _existing_file(cell: str, folder: Path) -> str | None:
    """Return the path of an existing file that a cell names."""
    name = unquote(cell[7:]) if cell.lower().startswith("file://") else cell
    paths = os.path.join(folder, name), name  # noqa: PTH118 — Path raises if a name is too long
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113


def parse_sex(sex: Any) -> Any:
    """Parse `sex`: `True` for a boy, `False` for a girl, `unknown` or `None`.

    Raises:
        BoneAgeError: another value.
    """
    if sex is None or isinstance(sex, bool):
        return sex
    codes = {"F": False, "M": True, "UNKNOWN": "unknown"}
    if (code := str(sex).strip().upper()) not in codes:
        raise BoneAgeError(f"sex={sex}: it must be F, M or unknown.")
    return codes[code]


def expand_inputs(
    images: Iterable[str], sex: Any = None, spec: DatasetSpec | None = None
) -> Iterator[PredictionRequest]:
    """Return the prediction requests of files, folders, patterns and tables, in their order.

    Args:
        images: files, folders (recursive), patterns such as `hands/*.png`, and tables with a column of
            paths or ids.
        sex: F, M or unknown, where no table has it; `None` to read it from the files.
        spec: options for reading tables.

    Raises:
        BoneAgeError: nothing found under a name, or an unreadable table.
    """
    male = parse_sex(sex)
    names = [(name, expand_path(str(name))) for name in images]
    if not names or not all(str(name) for name, _ in names):  # an empty name would be the working folder
        raise BoneAgeError("images= is empty: give a file, a folder, a pattern or a table.")
    return chain.from_iterable([_expand_one(str(name), path, male, spec) for name, path in names])


def _expand_one(name: str, path: Path, male: Any, spec: DatasetSpec | None) -> Iterable[PredictionRequest]:
    is_folder = path.is_dir()
    if not is_folder and os.path.lexists(path):
        if path.suffix.lower() in TABLE_SUFFIXES:
            return requests_from_table(path, male, spec)
        return [PredictionRequest(path, male)]
    paths = [str(path)] if is_folder else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
    if not paths:
        raise BoneAgeError(f"images={name}: no such file or folder, and no match.")
    others: Counter[str] = Counter()
    files = _images_of(name, paths, others)
    first = next(files, None)
    if first is None:
        skipped = f"; skipped: {_format_kinds(others)}" if others else ""
        raise BoneAgeError(f"images={name}: no radiographs found{skipped}.")
    return (PredictionRequest(file, male) for file in chain([first], files))


def _images_of(name: str, paths: list[str], others: Counter[str]) -> Iterator[Path]:
    """Yield each possible radiograph once, of files and (recursively) of folders.

    Other files are counted by kind and logged at the end.
    """
    seen = set()
    for path in chain.from_iterable(iter_files(Path(p)) if Path(p).is_dir() else [p] for p in paths):
        if path in seen:
            continue
        seen.add(path)
        if kind := other_kind(path):
            others[kind] += 1
        else:
            yield Path(path)
    if others:
        log.info("%s: skipped %s", name, _format_kinds(others))


def _format_kinds(others: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))


def other_kind(path: str) -> str:
    """Return the kind of a file that is no radiograph, `.heic` or `RT Plan Storage`; empty if it may be one.

    DICOM files have any name, as archives export them by number or UID; objects without pixels are skipped.
    """
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 — thousands of Paths take seconds
    if suffix in IMAGE_SUFFIXES and suffix not in DICOM_SUFFIXES:
        return ""
    if _has_dicom_mark(path):
        return non_image_class(path)
    return "" if suffix in IMAGE_SUFFIXES else suffix or "without suffix"


def _has_dicom_mark(path: str) -> bool:
    try:
        if not Path(path).is_file():  # a pipe would block
            return False
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return len(head) == _HEAD and is_dicom(head) and head[128:] == b"DICM"
