"""Load the label table and match its ids to image files."""

import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

import pandas as pd

from boneage_pl.data.tables.columns import OPTIONAL, split_unit
from boneage_pl.data.tables.discover import find_label_table, unsupported_files
from boneage_pl.data.tables.parse import LabelTable
from boneage_pl.data.tables.spec import IMAGE_SUFFIXES, DatasetSpec, format_options
from boneage_pl.data.tables.validate import DataIssues, age_unit, parse_ages, validate_rows
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import filter_by_suffix, iter_files

log = logging.getLogger(__name__)

_IMAGE_FOLDER = f"{os.sep}boneage-training-dataset{os.sep}"
_SUFFIX = re.compile(f"({'|'.join(map(re.escape, IMAGE_SUFFIXES))})$", re.IGNORECASE)
_DECIMALS = re.compile(r"(?<=\d)\.0+$")  # of an id that a spreadsheet treats as a number
_ABSOLUTE = re.compile(r"/|\\|[A-Za-z]:|file:")


def match_images(cells: Iterable[str], images: Iterable[str]) -> dict[str, list[str]]:
    """Return the images of each id that has any; several if ambiguous.

    Ids are compared with file names ignoring case, Unicode form, leading zeros and a number's `.0`; exact
    matches and Kaggle's folder are preferred. For a path, the folders must match too: all of a relative path,
    the last of an absolute one. If no file name matches, a folder with a single image may match instead.

    Args:
        cells: ids, or paths in the notation of any system.
        images: paths of all image files.

    Example:
        >>> match_images(["1377", "left\\\\1378.png"], ["/d/left/1377.PNG", "/d/left/1378.png"])
        {'1377': ['/d/left/1377.PNG'], 'left\\\\1378.png': ['/d/left/1378.png']}
    """
    cells, folders = dict.fromkeys(cells), {image: image.rpartition(os.sep)[0] for image in images}
    matches = _match_names(cells, {image: image for image in folders})
    if not matches:
        times = Counter(folders.values())
        matches = _match_names(cells, {i: folder for i, folder in folders.items() if times[folder] == 1})
    kaggle = {cell: [p for p in paths if _IMAGE_FOLDER in p.lower()] for cell, paths in matches.items()}
    return {cell: kaggle[cell] or paths for cell, paths in matches.items()}


def _match_names(cells: Iterable[str], names: Mapping[str, str]) -> dict[str, list[str]]:
    """Match ids with file names, given by path; no file matches two ids."""
    stems = {path: _SUFFIX.sub("", name.rpartition(os.sep)[2]) for path, name in names.items()}
    by_key: defaultdict[str, list[str]] = defaultdict(list)
    for path, stem in stems.items():
        by_key[_normalize(stem)].append(path)
    matches: dict[str, list[str]] = {}
    for cell in filter(None, cells):
        folders, stem = _split_path(cell)
        folders = folders[-1:] if _ABSOLUTE.match(cell) else folders
        candidates = by_key.get(_normalize(stem), [])
        if folders:
            candidates = [
                path for path in candidates if _split_path(names[path])[0][-len(folders) :] == folders
            ]
        matches[cell] = [path for path in candidates if stems[path] == stem] or candidates
    times = Counter(path for paths in matches.values() for path in paths)
    return {cell: paths for cell, paths in matches.items() if paths and max(times[p] for p in paths) == 1}


def _split_path(text: str) -> tuple[tuple[str, ...], str]:
    """Return the folders of a path and the file name without an image suffix."""
    if text.lower().startswith("file://"):
        text = unquote(text[7:])
    *folders, name = text.replace("\\", "/").split("/")
    return tuple(_normalize(f) for f in folders if f not in ("", ".", "..")), _SUFFIX.sub("", name)


def _normalize(name: str) -> str:
    name = _DECIMALS.sub("", unicodedata.normalize("NFC", name).casefold())
    return name.lstrip("0") or "0" if name.isdigit() else name


def match_rows(table: LabelTable, match: Callable[[pd.Series], dict[str, list[str]]]) -> pd.DataFrame:
    """Return ids and images of a table's rows, by the column in which every row matches an image.

    Args:
        table: with one or more candidate columns for the id.
        match: ids → images, see `match_images`.

    Returns:
        `cell` (the original id), `id` (without folders and suffix) and `paths`, by line.

    Raises:
        BoneAgeError: several columns could be the id, and not exactly one finds an image for every row.
    """
    paths = {}
    for name in table.columns["id"]:
        matches = match(table.rows[name])
        paths[name] = [matches.get(cell, []) for cell in table.rows[name]]
    whole = [name for name, rows in paths.items() if all(len(row) == 1 for row in rows)]
    own = [name for name in whole if len({row[0] for row in paths[name]}) == len(table.rows)]
    if len(own) == 1:  # in the others, rows share an image (patient ids)
        whole = own
    if len(paths) > 1 and (not whole or any(paths[name] != paths[whole[0]] for name in whole)):
        raise BoneAgeError(
            f"{table.path}: several columns could be the id: {', '.join(paths)}; "
            f"{'each' if whole else 'none'} of them matches an image in every row.\n"
            + format_options(columns__id="<column>")
        )
    name = (whole or list(paths))[0]
    cells = table.rows[name]
    parts = cells.map(_split_path)
    ids = parts.map(lambda split: _DECIMALS.sub("", split[1]))
    if ids.nunique() < parts.nunique():  # distinguished by folder
        ids = parts.map(lambda split: "/".join([*split[0], split[1]]))
    return pd.DataFrame({"cell": cells, "id": ids, "paths": paths[name]}, index=cells.index)


def _read_optional(table: LabelTable, cells: pd.Series) -> pd.DataFrame:
    """Return the optional columns `patient` and `chronological_age` (months), by line.

    Empty and invalid cells are missing values. The id column is not used as patient. Chronological ages of
    unknown unit are ignored with a warning.

    Raises:
        BoneAgeError: several candidate columns.
    """
    columns = pd.DataFrame(index=table.rows.index)
    for role in OPTIONAL:
        names = [name for name in table.columns[role] if not table.rows[name].equals(cells)]
        if len(names) > 1:
            raise BoneAgeError(
                f"{table.path}: several columns could be the {role.replace('_', ' ')}: "
                f"{', '.join(names)}.\n" + format_options(**{f"columns__{role}": "<column>"})
            )
        for name in names:
            if role == "patient":
                columns[role] = table.rows[name].replace("", None)
            elif unit := split_unit(name)[1] or age_unit(table, name):
                columns[role] = parse_ages(table.rows[name], unit)
            else:
                log.warning(
                    "%s: column %s is ignored, since its unit is unknown; rename it to %s_years or _months",
                    table.path,
                    name,
                    name,
                )
    return columns


def read_table(root: Path) -> pd.DataFrame:
    """Return the table under `root` like `load_table`, without tolerating issues.

    Raises:
        BoneAgeError: see `load_table`; or unusable rows or images.
    """
    table, issues = load_table(DatasetSpec(root))
    if issues:
        raise issues.error()
    return table


def load_table(spec: DatasetSpec) -> tuple[pd.DataFrame, DataIssues]:
    """Read the label table of a data set, match rows to images and collect issues.

    Supported: the archives of Kaggle and of the RSNA, and any folder with one table that has columns for id,
    bone age and sex (see `ALIASES`), and an image for each row at any depth.

    Returns:
        The usable rows, one per image: `id` (str), `bone_age` (months, float), `male` (bool), optionally
        `patient` (str) and `chronological_age` (months), `path` (str); and the issues of the others. No image
        is opened.

    Raises:
        BoneAgeError: no table, several candidates, unrecognized columns, units or codes, or no image for any
            row.
    """
    root = spec.root
    files = list(iter_files(root)) if root.is_dir() else []
    images = filter_by_suffix(files, IMAGE_SUFFIXES)
    label_table = find_label_table(spec, files, images)
    issues = DataIssues(label_table.path)
    rows = match_rows(label_table, lambda cells: match_images(cells, images))
    if len(rows) and not rows["paths"].any():
        example = f"{Path(images[0]).name} ({len(images)} in all)" if images else "no image"
        raise BoneAgeError(
            f"{label_table.path}: no row matches an image under {root}.\n"
            f"table: {rows['cell'].iloc[0]}; files: {example}{unsupported_files(files)}.\n"
            "Images are matched by id or path. Pass their folder as data.root, or another column as\n"
            "data.columns.id=<column>."
        )
    optional = _read_optional(label_table, rows["cell"])
    table = validate_rows(label_table, rows["id"], issues).join(rows).join(optional)
    count = table["paths"].map(len)
    without, several = table[count == 0], table[count > 1]
    issues.add(f"row without its image under {root}", zip(without["id"], without["cell"], strict=True))
    issues.add(
        "id with more than one image", zip(several["id"], several["paths"].str.join(", "), strict=True)
    )
    table = table[count == 1].assign(path=lambda rows: rows["paths"].str[0].astype(str))
    columns = ["id", "bone_age", "male", *optional.columns, "path"]
    return table[columns].reset_index(drop=True), issues
