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
_DECIMALS = re.compile(r"(?<=\d)\.0+$")  # of an id that a spreadsheet takes for a number
_ABSOLUTE = re.compile(r"/|\\|[A-Za-z]:|file:")


def match_images(cells: Iterable[str], images: Iterable[str]) -> dict[str, list[str]]:
    """Return the images of each id that has any; several where several could be meant.

    An id is compared with the names of files that are there without case, Unicode form, leading zeros and a
    number's `.0`; one that is the same to the letter comes first, and so does the folder of Kaggle's archive.
    If it is a path, the file must lie in its folders: all of a relative path, the last of an absolute one. If
    no file is called like any id, an image that is alone in a folder called like an id is taken.

    Args:
        cells: ids, or paths as any system writes them.
        images: every image file's path.

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
    """Match ids with the names of files, given by path; no file is of two ids."""
    stems = {path: _SUFFIX.sub("", name.rpartition(os.sep)[2]) for path, name in names.items()}
    by_key: defaultdict[str, list[str]] = defaultdict(list)
    for path, stem in stems.items():
        by_key[_normalize(stem)].append(path)
    found: dict[str, list[str]] = {}
    for cell in filter(None, cells):
        folders, stem = _split_path(cell)
        folders = folders[-1:] if _ABSOLUTE.match(cell) else folders
        there = by_key.get(_normalize(stem), [])
        if folders:
            there = [path for path in there if _split_path(names[path])[0][-len(folders) :] == folders]
        found[cell] = [path for path in there if stems[path] == stem] or there
    times = Counter(path for paths in found.values() for path in paths)
    return {cell: paths for cell, paths in found.items() if paths and max(times[p] for p in paths) == 1}


def _split_path(text: str) -> tuple[tuple[str, ...], str]:
    """Return the folders of a path as any system writes it, and the file's name without an image's suffix."""
    if text.lower().startswith("file://"):
        text = unquote(text[7:])
    *folders, name = text.replace("\\", "/").split("/")
    return tuple(_normalize(f) for f in folders if f not in ("", ".", "..")), _SUFFIX.sub("", name)


def _normalize(name: str) -> str:
    name = _DECIMALS.sub("", unicodedata.normalize("NFC", name).casefold())
    return name.lstrip("0") or "0" if name.isdigit() else name


def match_rows(table: LabelTable, match: Callable[[pd.Series], dict[str, list[str]]]) -> pd.DataFrame:
    """Return the ids of a table's rows, from the column whose rows find an image each, and these images.

    Args:
        table: with one column or more that could be the id.
        match: ids → images, see `match_images`.

    Returns:
        `cell` (the id as the table has it), `id` (without folders and suffix) and `paths`, by line.

    Raises:
        BoneAgeError: several columns could be the id, and not exactly one finds an image for every row.
    """
    paths = {}
    for name in table.columns["id"]:
        matches = match(table.rows[name])
        paths[name] = [matches.get(cell, []) for cell in table.rows[name]]
    whole = [name for name, rows in paths.items() if all(len(row) == 1 for row in rows)]
    own = [name for name in whole if len({row[0] for row in paths[name]}) == len(table.rows)]
    if len(own) == 1:  # in the others rows share an image, as those of a patient do
        whole = own
    if len(paths) > 1 and (not whole or any(paths[name] != paths[whole[0]] for name in whole)):
        raise BoneAgeError(
            f"{table.path}: more than one column could be the id, {', '.join(paths)}, and "
            f"{'each' if whole else 'none'} of them finds an image for every row.\n"
            + format_options(columns__id="<column>")
        )
    name = (whole or list(paths))[0]
    cells = table.rows[name]
    parts = cells.map(_split_path)
    ids = parts.map(lambda split: _DECIMALS.sub("", split[1]))
    if ids.nunique() < parts.nunique():  # the folders tell them apart
        ids = parts.map(lambda split: "/".join([*split[0], split[1]]))
    return pd.DataFrame({"cell": cells, "id": ids, "paths": paths[name]}, index=cells.index)


def _read_optional(table: LabelTable, cells: pd.Series) -> pd.DataFrame:
    """Return the columns `patient` and `chronological_age` (months) of those that are there, by line.

    A cell is missing where it is empty, or no age. The column of the ids is no patient's. Chronological ages
    whose unit is not known are not used; that is logged.

    Raises:
        BoneAgeError: several columns could be one of them.
    """
    found = pd.DataFrame(index=table.rows.index)
    for role in OPTIONAL:
        names = [name for name in table.columns[role] if not table.rows[name].equals(cells)]
        if len(names) > 1:
            raise BoneAgeError(
                f"{table.path}: more than one column could be the {role.replace('_', ' ')}: "
                f"{', '.join(names)}.\n" + format_options(**{f"columns__{role}": "<column>"})
            )
        for name in names:
            if role == "patient":
                found[role] = table.rows[name].replace("", None)
            elif unit := split_unit(name)[1] or age_unit(table, name):
                found[role] = parse_ages(table.rows[name], unit)
            else:
                log.warning("%s: %s is not used; years or months? Call it %s_years", table.path, name, name)
    return found


def read_table(root: Path) -> pd.DataFrame:
    """Return the table under `root`, as `load_table` does, where nothing is wrong with it.

    Raises:
        BoneAgeError: see `load_table`; or rows or images that cannot be used, reported together.
    """
    table, issues = load_table(DatasetSpec(root))
    if issues:
        raise issues.error()
    return table


def load_table(spec: DatasetSpec) -> tuple[pd.DataFrame, DataIssues]:
    """Read the table of a data set, find each row's image, and collect what cannot be used.

    Recognized: the archives of Kaggle and of the RSNA, and any folder with one table that has a column each
    for the id, the bone age and the sex (see `ALIASES`), and an image for each row at any depth.

    Returns:
        The rows that can be used, one an image: `id` (str), `bone_age` (months, float), `male` (bool), where
        the table has them `patient` (str) and `chronological_age` (months), `path` (str); and what is wrong
        with the others. No image has been opened.

    Raises:
        BoneAgeError: no table, several that could be meant, columns, units or codes that are not known, or no
            image for any row.
    """
    root = spec.root
    files = list(iter_files(root)) if root.is_dir() else []
    images = filter_by_suffix(files, IMAGE_SUFFIXES)
    label_table = find_label_table(spec, files, images)
    issues = DataIssues(label_table.path)
    rows = match_rows(label_table, lambda cells: match_images(cells, images))
    if len(rows) and not rows["paths"].any():
        shown = f"{Path(images[0]).name} ({len(images)} in all)" if images else "no image"
        raise BoneAgeError(
            f"{label_table.path}: no row finds its image under {root}.\n"
            f"table: {rows['cell'].iloc[0]}; files: {shown}{unsupported_files(files)}.\n"
            "An image is named by its id or its path: pass the folder that has both as data.root, or\n"
            "another column as data.columns.id=<column>."
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
