"""Find a bone-age table and its images under a folder, whatever the layout, and check both once."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from boneage_pl.data.columns import MEANINGS, WORDS, Meaning, not_understood, option, understood
from boneage_pl.data.ids import example, find_images
from boneage_pl.data.place import Place
from boneage_pl.data.problems import Problems, first_ten
from boneage_pl.data.rows import check_rows, sexes
from boneage_pl.data.table_file import MissingExtraError, first_header, read_rows
from boneage_pl.errors import BoneageError

_NOT_READ = (".xls", ".ods", ".numbers", ".sav", ".parquet")  # tables of other programs


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
    files = list(_walk(root)) if root.is_dir() else []
    images = _with_suffix(files, place.known.image_suffixes)
    file, note = _choose_table(place, files, images)
    problems = Problems(file)
    problems.note(note)
    raw = read_rows(file, lambda cells: _is_header(cells, place))
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


def _with_suffix(files: list[str], suffixes: Iterable[str]) -> list[str]:
    ends = tuple(suffixes)
    return [file for file in files if file.lower().endswith(ends)]


def _walk(root: Path) -> Iterator[str]:
    """Every file under `root`, links followed once, hidden and macOS resource entries left out."""
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s != "__MACOSX")
        for name in sorted(names):
            if not name.startswith((".", "~$")):  # ~$: what Excel leaves while a table is open
                yield f"{folder}{os.sep}{name}"


def _is_header(cells: list[str], place: Place) -> bool:
    try:
        return understood(cells, place.columns).complete
    except BoneageError:
        return True  # it is one, and says so when it is read


def _meaning(file: Path, raw: pd.DataFrame, place: Place) -> Meaning:
    try:
        meaning = understood(list(raw.columns), place.columns)
    except BoneageError as error:
        raise BoneageError(f"{file}: {error}") from error
    if meaning.missing:
        raise BoneageError(f"{file}: {not_understood(raw, place.columns, sexes)}")
    return meaning


def _choose_table(place: Place, files: list[str], images: list[str]) -> tuple[Path, str]:
    """Return the table, and a word on others that could have been meant."""
    if named := place.table_file():
        return named, ""
    # reading a pipe would wait for ever
    candidates = [Path(f) for f in _with_suffix(files, place.known.table_suffixes) if Path(f).is_file()]
    headers, unread = _headers(candidates, place)
    tables = [file for file, header in headers.items() if _is_header(header, place)]
    if not tables:
        raise _nothing_found(place, headers, unread, files, images)
    chosen = tables
    for name in place.known.tables:
        if same := [table for table in tables if table.name.lower() == name]:
            chosen = same
            break
    else:  # a table with the very columns of the training table comes before one that means the same
        chosen = [table for table in tables if _published(headers[table], place)] or tables
    names = [str(table.relative_to(place.root)) for table in chosen]
    if len(chosen) > 1:
        raise BoneageError(
            f"{place.root} holds {len(chosen)} tables with {_listed(WORDS.values())} in each row: "
            f"{first_ten(names)}\nSay which: {option('data.table', names[0])}"
        )
    others = [str(table.relative_to(place.root)) for table in tables if table not in chosen]
    return chosen[0], f"table: {names[0]}; not {first_ten(others)}" if others else ""


def _published(header: list[str], place: Place) -> bool:
    try:
        return understood(header, place.columns).published
    except BoneageError:
        return False


def _headers(candidates: list[Path], place: Place) -> tuple[dict[Path, list[str]], BoneageError | None]:
    """Return the header of each table, and why one could not be read where what reads it is missing."""
    headers: dict[Path, list[str]] = {}
    unread = None
    for file in candidates:
        try:
            headers[file] = first_header(file, lambda cells: _is_header(cells, place))
        except MissingExtraError as error:
            unread = error
    return headers, unread


def _nothing_found(
    place: Place,
    headers: dict[Path, list[str]],
    unread: BoneageError | None,
    files: list[str],
    images: list[str],
) -> BoneageError:
    """Say what is missing: a column, what reads a table, the table, or all of it."""
    root = place.root
    tables = [file for file, header in headers.items() if len(header) > 1]
    if len(tables) == 1:
        raw = read_rows(tables[0], lambda cells: _is_header(cells, place))
        return BoneageError(f"{tables[0]}: {not_understood(raw, place.columns, sexes)}")
    if tables:
        listed = [f"{t.relative_to(root)} ({','.join(headers[t])[:60]})" for t in tables[:3]]
        return BoneageError(
            f"{root} holds {len(tables)} tables, none with {_listed(WORDS.values())}: "
            f"{'; '.join(listed)}{' …' if len(tables) > 3 else ''}.\n"
            f"Say which, and what its columns are: {option('data.table', str(tables[0].relative_to(root)))} "
            f"{' '.join(f'data.columns.{name}=<column>' for name in MEANINGS)}"
        )
    if unread:
        return unread
    if other := _with_suffix(files, _NOT_READ):
        return BoneageError(
            f"{other[0]}: {Path(other[0]).suffix} tables are not read. Save it as .csv or .xlsx."
        )
    if images and (above := _one_level_up(place)):
        return BoneageError(
            f"{root} holds {len(images)} images and no table; the table is one level up.\n"
            f"Say so: {option('data.root', str(root))} {option('data.table', str(above))}"
        )
    looked = f"It holds {len(images)} images and no table with {_listed(WORDS.values())}"
    if not root.exists():
        looked = "That folder does not exist"
    elif not images:
        looked = f"It holds no table and no image{_others(files, place)}"
    return BoneageError(
        f"No bone-age data in data.root={root} ({root.resolve()}).\n"
        f"{looked}.\n"
        "Get the RSNA 2017 training set from the RSNA Pediatric Bone Age Challenge page (rsna.org) or\n"
        "from Kaggle (kmader/rsna-bone-age), unpack it and pass data.root=<folder> or set BONEAGE_DATA;\n"
        "or run with data=phantom, which draws its own radiographs and downloads nothing."
    )


def _one_level_up(place: Place) -> Path | None:
    """Return the table beside the folder of the images, if there is one alone."""
    parent = place.root.resolve().parent
    beside = sorted(
        f for f in parent.iterdir() if f.suffix.lower() in place.known.table_suffixes and f.is_file()
    )
    headers, _ = _headers(beside, place)
    tables = [file for file, header in headers.items() if _is_header(header, place)]
    known = [t for t in tables if t.name.lower() in place.known.tables]
    tables = known if len(tables) > 1 and known else tables
    return Path(os.path.relpath(tables[0], place.root.resolve())) if len(tables) == 1 else None


def _no_image(file: Path, first: str, images: list[str], files: list[str], place: Place) -> BoneageError:
    there = f"files: {example(images)}" if images else f"files: no {' or '.join(place.known.image_suffixes)}"
    return BoneageError(
        f"{file}: no row finds its image under {place.root}.\n"
        f"table: {first}; {there}{_others(files, place)}.\n"
        "An image is called like its id; point data.root at the folder that has both, or correct the ids."
    )


def _others(files: Iterable[str], place: Place) -> str:
    """Say which files are left aside: radiographs in another format, or not unpacked."""
    read = {*place.known.image_suffixes, *place.known.table_suffixes}
    suffixes = Counter(suffix for f in files if (suffix := Path(f).suffix.lower()) and suffix not in read)
    return "".join(f"; {count} {suffix} files are not read" for suffix, count in suffixes.most_common(2))


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}"


def _chosen(paths: list[str], folder: str) -> list[str]:
    """Copies outside the folder named by the challenge give way to those in it."""
    return [p for p in paths if folder in Path(p.lower()).parts] or paths
