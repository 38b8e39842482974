"""Load the label table and match its ids to image files."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from boneage_pl.data.tables.columns import COLUMN_ALIASES, ColumnMapping, map_columns, unmapped_columns_error
from boneage_pl.data.tables.discover import find_label_table, is_header, unsupported_files
from boneage_pl.data.tables.parse import read_rows
from boneage_pl.data.tables.spec import DatasetSpec
from boneage_pl.data.tables.validate import DataIssues, parse_sexes, validate_rows
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import filter_by_suffix, iter_files

_EXAMPLES = 20  # ids that are looked for inside file names, to find what all of them have around the id


def match_images(ids: list[str], images: list[str]) -> tuple[dict[str, list[str]], str]:
    """Return the images of each id that has any, and how their names were read where they are not `<id>.png`.

    An id is only ever compared with the names of files that are there: none is made into a path. First they
    are compared to the letter; what is left then without regard to case, a number's `.0` or an image's suffix
    in the table; then without a number's leading zeros. Only where none of these finds anything is a
    beginning or an end looked for that all file names have around the id, such as `hand_`.

    Args:
        ids: of the table, each once.
        images: every image file's path.

    Returns:
        Images by id, more than one where several could be meant; and the beginning and end around it
        (`hand_<id>`), else nothing.
    """
    stems: dict[str, list[str]] = {}
    for path in images:  # as text: a hundred thousand Paths take seconds
        stems.setdefault(path.rpartition(os.sep)[2].rpartition(".")[0], []).append(path)
    matches: dict[str, list[str]] = {}
    rest = ids
    for key in (str, _normalize_name, _strip_leading_zeros):
        rest = _match(rest, stems, key, matches) if rest else []
    if matches or not ids:
        return matches, ""
    return _match_by_affix(ids, stems)


def _match(
    ids: list[str], stems: dict[str, list[str]], key: Callable[[str], str], matches: dict[str, list[str]]
) -> list[str]:
    """Move what `key` makes equal from `stems` to `matches`, and return the ids that are left."""
    by_key: dict[str, list[str]] = {}
    for stem in stems:
        by_key.setdefault(key(stem), []).append(stem)
    keys = {i: key(i) for i in ids}
    times = Counter(keys.values())
    taken = {i: by_key[k] for i, k in keys.items() if k in by_key and times[k] == 1}
    matches.update({i: [path for stem in names for path in stems[stem]] for i, names in taken.items()})
    for name in {name for names in taken.values() for name in names}:
        del stems[name]
    return [i for i in ids if i not in taken]


def _normalize_name(name: str) -> str:
    """Return a name without case, and without the `.0` or `.png` that a table has and a stem has not."""
    name = unicodedata.normalize("NFC", name).casefold()
    return re.sub(r"(?<=\d)\.0+$|\.(png|jpe?g|dcm|tiff?)$", "", name)


def _strip_leading_zeros(name: str) -> str:
    name = _normalize_name(name)
    return name.lstrip("0") or "0" if name.isdigit() else name


def _match_by_affix(ids: list[str], stems: dict[str, list[str]]) -> tuple[dict[str, list[str]], str]:
    """Find what most file names have before and after the id, and match by it."""
    wanted = {_strip_leading_zeros(i): i for i in ids}
    sample = list(wanted)[:: max(len(wanted) // _EXAMPLES, 1)][:_EXAMPLES]
    around: Counter[tuple[str, str]] = Counter()
    for part in sample:
        # a number is not part of a longer number
        edge = (r"(?<!\d)0*", r"(?!\d)") if part.isdigit() else ("", "")
        pattern = re.compile(f"{edge[0]}{re.escape(part)}{edge[1]}", re.IGNORECASE)
        around.update({(s[: m.start()], s[m.end() :]) for s in stems for m in pattern.finditer(s)})
    most = max(around.values(), default=0)
    if most < min(2, len(ids)):
        return {}, ""
    ends = [end for end, times in around.items() if times == most]
    matches: dict[str, list[str]] = {}
    for before, after in ends:
        for stem, paths in stems.items():
            if len(stem) > len(before) + len(after) and stem.startswith(before) and stem.endswith(after):
                i = wanted.get(_strip_leading_zeros(stem[len(before) : len(stem) - len(after)]))
                if i is not None:
                    matches.setdefault(i, []).extend(paths)
    return matches, " or ".join(f"{before}<id>{after}" for before, after in ends)


def format_example(paths: Iterable[str]) -> str:
    """Name the first of some files, and say how many there are."""
    listed = list(paths)
    more = f" ({len(listed)} in all)" if len(listed) > 1 else ""
    return f"{Path(listed[0]).name}{more}"


def read_table(root: Path) -> pd.DataFrame:
    """Return the table under `root`, as `load_table` does, where nothing is wrong with it.

    Raises:
        BoneAgeError: see `load_table`; or rows or images that cannot be used, reported together.
    """
    table, problems = load_table(DatasetSpec(root))
    if problems:
        raise problems.error()
    return table


def load_table(place: DatasetSpec) -> tuple[pd.DataFrame, DataIssues]:
    """Read the table of a data set, find each row's image, and collect what cannot be used.

    Recognized: the Kaggle archive (images in `boneage-training-dataset/`, or nested once more), the
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
    matches, around = match_images(table["id"].tolist(), images)
    if not matches and len(table):
        raise _no_image_error(file, table["id"].iloc[0], images, files, place)
    if around:
        example = format_example(path for paths in matches.values() for path in paths)
        problems.note(f"images are matched as {around}: {example}")
    there = {
        i: _pick_paths(paths, place.naming.image_folder) if len(paths) > 1 else paths
        for i, paths in matches.items()
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
