"""Find a bone-age table and its images under a folder, whatever the layout, and check both once."""

from pathlib import Path

import pandas as pd

from boneage_pl.data.columns import COLUMN_ALIASES, ColumnMapping, map_columns, unmapped_columns_error
from boneage_pl.data.ids import format_example, match_images
from boneage_pl.data.place import DatasetSpec
from boneage_pl.data.problems import DataIssues
from boneage_pl.data.rows import parse_sexes, validate_rows
from boneage_pl.data.table_file import read_rows
from boneage_pl.data.which_table import find_label_table, is_header, unsupported_files
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import filter_by_suffix, iter_files


def read_table(root: Path) -> pd.DataFrame:
    """Return the table under `root`, as `load_table` does, where nothing is wrong with it.

    Raises:
        BoneAgeError: see `load_table`; or any row or missing image, all of them told together.
    """
    table, problems = load_table(DatasetSpec(root))
    if problems:
        raise problems.error()
    return table


def load_table(place: DatasetSpec) -> tuple[pd.DataFrame, DataIssues]:
    """Read the table of a data set, find each row's image, and collect what cannot be used.

    Recognised: the Kaggle archive (images in `boneage-training-dataset/`, or nested once more), the
    challenge's own archives, and any folder that holds one table with a column each for the id, the bone age
    and the sex (see `COLUMN_ALIASES`) and an image for each row, at any depth. docs/DATA.md has all of it.

    Returns:
        The rows that can be used, one an image: `id` (str), `bone_age` (months, float), `male` (bool), `path`
        (str); and what is wrong with the others. No image has been opened.

    Raises:
        BoneAgeError: no table, several that could be meant, one whose columns are not understood or whose
            rows are none, ages in a unit that is in doubt, or no image for any row.
    """
    root = place.root
    files = list(iter_files(root)) if root.is_dir() else []
    images = filter_by_suffix(files, place.naming.image_suffixes)
    file, note = find_label_table(place, files, images)
    problems = DataIssues(file)
    problems.note(note)
    raw = read_rows(file, lambda cells: is_header(cells, place))
    meaning = _map_columns(file, raw, place)
    raw = raw[[meaning.of[name] for name in COLUMN_ALIASES]].set_axis(list(COLUMN_ALIASES), axis=1)
    unit = place.age_unit or meaning.unit
    table = validate_rows(raw, file, problems, unit, inverted=meaning.inverted)
    found, around = match_images(table["id"].tolist(), images)
    if not found and len(table):
        raise _no_image_error(file, table["id"].iloc[0], images, files, place)
    if around:
        problems.note(
            f"images are matched as {around}: {format_example(p for paths in found.values() for p in paths)}"
        )
    there = {
        i: _pick_paths(paths, place.naming.image_folder) if len(paths) > 1 else paths
        for i, paths in found.items()
    }
    problems.add(
        f"row without its image under {root}", ((i, f"{i}.png") for i in table["id"] if i not in there)
    )
    problems.add(
        "id with more than one image",
        ((i, f"{paths[0]} and {paths[1]}") for i, paths in there.items() if len(paths) > 1),
    )
    single = table[table["id"].map(lambda i: len(there.get(i, ())) == 1).astype(bool)]
    return single.assign(path=[there[i][0] for i in single["id"]]).reset_index(drop=True), problems


def _map_columns(file: Path, raw: pd.DataFrame, place: DatasetSpec) -> ColumnMapping:
    try:
        meaning = map_columns(list(raw.columns), place.columns)
    except BoneAgeError as error:
        raise BoneAgeError(f"{file}: {error}") from error
    if meaning.missing:
        raise BoneAgeError(f"{file}: {unmapped_columns_error(raw, place.columns, parse_sexes)}")
    return meaning


def _no_image_error(
    file: Path, first: str, images: list[str], files: list[str], place: DatasetSpec
) -> BoneAgeError:
    there = (
        f"files: {format_example(images)}"
        if images
        else f"files: no {' or '.join(place.naming.image_suffixes)}"
    )
    return BoneAgeError(
        f"{file}: no row finds its image under {place.root}.\n"
        f"table: {first}; {there}{unsupported_files(files, place)}.\n"
        "An image is called like its id; point data.root at the folder that has both, or correct the ids."
    )


def _pick_paths(paths: list[str], folder: str) -> list[str]:
    """Copies outside the folder named by the challenge give way to those in it."""
    return [p for p in paths if folder in Path(p.lower()).parts] or paths
