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
_UNKNOWN = {"unknown", "u", "o", "x"}  # cells of a sex that is not known; o is DICOM's "other"
_INVALID = object()  # of a cell that is no sex
_HEAD = 132  # bytes that identify DICOM


def requests_from_table(table: Path, male: Any, spec: DatasetSpec | None = None) -> list[PredictionRequest]:
    """Return a prediction request for each row of a table.

    Its ids or paths name images in or below the table's folder, or files that are there as they stand. Its
    sexes are read as in training. A row that cannot be used becomes a request with its error.

    Args:
        table: a CSV or XLSX file.
        male: the sex where the table has none: `True`, `False`, `"unknown"` or `None`.
        spec: what is stated about the table; it is then logged how many girls and boys there are.

    Raises:
        BoneAgeError: it cannot be read, has no rows, or its columns or their codes are not known.
    """
    from boneage_pl.data.tables.load import match_images, match_rows  # imports pandas
    from boneage_pl.data.tables.parse import read_label_table
    from boneage_pl.data.tables.validate import parse_sexes

    labels = read_label_table(table, spec or DatasetSpec(table.parent), ages=False)
    images = filter_by_suffix(list(iter_files(table.parent)), IMAGE_SUFFIXES)

    def match(cells: Iterable[str]) -> dict[str, list[str]]:
        there = {cell: [file] for cell in cells if (file := _existing_file(cell, table.parent))}
        return match_images((cell for cell in cells if cell not in there), images) | there

    rows = match_rows(labels, match)
    sexes: list[Any] = [male] * len(rows)
    for name in labels.columns["sex"]:  # one at most
        words = labels.rows[name].str.casefold()
        unknown = words.isin(_UNKNOWN.difference(labels.spec.sex_codes()))
        empty = words.isin(["", "?"])
        known = parse_sexes(labels, labels.rows[name].mask(unknown | empty, ""))
        stated = [bool(is_male) if is_male in (True, False) else _INVALID for is_male in known]
        sexes = ["unknown" if u else male if e else s for u, e, s in zip(unknown, empty, stated, strict=True)]
        if spec is not None:
            girls, boys = (stated.count(sex) for sex in (False, True))
            log.info("%s: %d girls and %d boys in %d rows by column %s", table, girls, boys, len(rows), name)
    requests = []
    for cell, paths, sex in zip(rows["cell"], rows["paths"], sexes, strict=True):
        error = "its sex is none of F, M, unknown" if sex is _INVALID else ""
        if len(paths) != 1:
            error = "several files have this name" if paths else "no file has this name"
        if not cell:
            error = "its path is empty"
        image = Path(paths[0] if paths else cell)
        requests.append(PredictionRequest(image, None if sex is _INVALID else sex, error))
    return requests


def _existing_file(cell: str, folder: Path) -> str | None:
    """Return the path of a file that a cell names as it stands."""
    name = unquote(cell[7:]) if cell.lower().startswith("file://") else cell
    paths = os.path.join(folder, name), name  # noqa: PTH118 — a Path raises where a name is too long
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113


def parse_sex(sex: Any) -> Any:
    """Return what `sex` says: a boy `True`, a girl `False`, `unknown`, or `None` where it says nothing.

    Raises:
        BoneAgeError: it is none of these.
    """
    if sex is None or isinstance(sex, bool):
        return sex
    known = {"F": False, "M": True, "UNKNOWN": "unknown"}
    if (named := str(sex).strip().upper()) not in known:
        raise BoneAgeError(f"sex={sex}: it is F, M or unknown.")
    return known[named]


def expand_inputs(
    images: Iterable[str], sex: Any = None, spec: DatasetSpec | None = None
) -> Iterator[PredictionRequest]:
    """Return prediction requests, in the order of names; a table's rows in its order.

    Args:
        images: files, folders (with all below), patterns such as `hands/*.png`, and tables with a column of
            paths or ids.
        sex: of all of them, where no table says otherwise: F, M or unknown; `None` where the files say.
        spec: what is stated about tables.

    Raises:
        BoneAgeError: a name under which there is nothing, or a table that cannot be read.
    """
    male = parse_sex(sex)
    names = [(name, expand_path(str(name))) for name in images]
    if not names or not all(str(name) for name, _ in names):  # an empty one would be the working folder
        raise BoneAgeError("images= is empty: name a file, a folder, a pattern or a table.")
    return chain.from_iterable([_expand_one(str(name), path, male, spec) for name, path in names])


def _expand_one(name: str, path: Path, male: Any, spec: DatasetSpec | None) -> Iterable[PredictionRequest]:
    is_folder = path.is_dir()
    if not is_folder and os.path.lexists(path):
        if path.suffix.lower() in TABLE_SUFFIXES:
            return requests_from_table(path, male, spec)
        return [PredictionRequest(path, male)]
    found = [str(path)] if is_folder else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
    if not found:
        raise BoneAgeError(f"images={name}: there is no such file or folder, and nothing matches it.")
    others: Counter[str] = Counter()
    files = _images_of(name, found, others)
    first = next(files, None)
    if first is None:
        there = f"; left out: {_format_kinds(others)}" if others else ""
        raise BoneAgeError(f"images={name}: no radiograph in it{there}.")
    return (PredictionRequest(file, male) for file in chain([first], files))


def _images_of(name: str, found: list[str], others: Counter[str]) -> Iterator[Path]:
    """Yield each file that may be a radiograph, once, of files and of folders with all below them.

    The rest is counted by kind, and logged at the end.
    """
    seen = set()
    for path in chain.from_iterable(iter_files(Path(one)) if Path(one).is_dir() else [one] for one in found):
        if path in seen:
            continue
        seen.add(path)
        if kind := other_kind(path):
            others[kind] += 1
        else:
            yield Path(path)
    if others:
        log.info("%s: left out %s", name, _format_kinds(others))


def _format_kinds(others: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))


def other_kind(path: str) -> str:
    """Return what a file is that is no radiograph, `.heic` or `RT Plan Storage`; nothing where it may be one.

    DICOM has any name: archives export it by number or UID. Its objects without an image are no radiographs.
    """
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 — thousands of Paths take seconds
    if suffix in IMAGE_SUFFIXES and suffix not in DICOM_SUFFIXES:
        return ""
    if _has_dicom_mark(path):
        return non_image_class(path)
    return "" if suffix in IMAGE_SUFFIXES else suffix or "without suffix"


def _has_dicom_mark(path: str) -> bool:
    try:
        if not Path(path).is_file():  # a pipe would be waited for
            return False
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return len(head) == _HEAD and is_dicom(head) and head[128:] == b"DICM"
