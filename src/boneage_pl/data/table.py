"""Find a bone-age table and its images under a folder, whatever the layout, and check both once."""

from pathlib import Path

import pandas as pd

from boneage_pl.data.columns import MEANINGS, Meaning, not_understood, understood
from boneage_pl.data.files import walk, with_suffix
from boneage_pl.data.ids import example, find_images
from boneage_pl.data.place import Place
from boneage_pl.data.problems import Problems
from boneage_pl.data.rows import check_rows, sexes
from boneage_pl.data.table_file import read_rows
from boneage_pl.data.which_table import choose_table, is_header, others
from boneage_pl.errors import BoneageError


def read_table(root: Path) -> pd.DataFrame:
    """Return the table under `root`, as `examine_table` does, where nothing is wrong with it.

    Raises:
        BoneageError: see `examine_table`; or any row or missing image, all of them told together.
    """
    table, problems = examine_table(Place(root))
    if problems:
        raise problems.error()
    return table


def examine_table(place: Place) -> tuple[pd.DataFrame, Problems]:
    """Read the table of a data set, find each row's image, and collect what cannot be used.

    Recognised: the Kaggle archive (images in `boneage-training-dataset/`, or nested once more), the
    challenge's own archives, and any folder that holds one table with a column each for the id, the bone age
    and the sex (see `MEANINGS`) and an image for each row, at any depth. docs/DATA.md has all of it.

    Returns:
        The rows that can be used, one an image: `id` (str), `bone_age` (months, float), `male` (bool), `path`
        (str); and what is wrong with the others. No image has been opened.

    Raises:
        BoneageError: no table, several that could be meant, one whose columns are not understood or whose
            rows are none, ages in a unit that is in doubt, or no image for any row.
    """
    root = place.root
    files = list(walk(root)) if root.is_dir() else []
    images = with_suffix(files, place.known.image_suffixes)
    file, note = choose_table(place, files, images)
    problems = Problems(file)
    problems.note(note)
    raw = read_rows(file, lambda cells: is_header(cells, place))
    meaning = _meaning(file, raw, place)
    raw = raw[[meaning.of[name] for name in MEANINGS]].set_axis(list(MEANINGS), axis=1)
    unit = place.age_unit or meaning.unit
    table = check_rows(raw, file, problems, unit, inverted=meaning.inverted)
    found, around = find_images(table["id"].tolist(), images)
    if not found and len(table):
        raise _no_image(file, table["id"].iloc[0], images, files, place)
    if around:
        problems.note(
            f"images are matched as {around}: {example(p for paths in found.values() for p in paths)}"
        )
    there = {
        i: _chosen(paths, place.known.image_folder) if len(paths) > 1 else paths for i, paths in found.items()
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


def _meaning(file: Path, raw: pd.DataFrame, place: Place) -> Meaning:
    try:
        meaning = understood(list(raw.columns), place.columns)
    except BoneageError as error:
        raise BoneageError(f"{file}: {error}") from error
    if meaning.missing:
        raise BoneageError(f"{file}: {not_understood(raw, place.columns, sexes)}")
    return meaning


def _no_image(file: Path, first: str, images: list[str], files: list[str], place: Place) -> BoneageError:
    there = f"files: {example(images)}" if images else f"files: no {' or '.join(place.known.image_suffixes)}"
    return BoneageError(
        f"{file}: no row finds its image under {place.root}.\n"
        f"table: {first}; {there}{others(files, place)}.\n"
        "An image is called like its id; point data.root at the folder that has both, or correct the ids."
    )


def _chosen(paths: list[str], folder: str) -> list[str]:
    """Copies outside the folder named by the challenge give way to those in it."""
    return [p for p in paths if folder in Path(p.lower()).parts] or paths
