"""Which of the files under a folder is the table; where none can be it, what is missing."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from boneage_pl.data.columns import MEANINGS, PUBLISHED, WORDS, is_own, not_understood, option, understood
from boneage_pl.data.files import with_suffix
from boneage_pl.data.place import Place
from boneage_pl.data.problems import first_ten
from boneage_pl.data.rows import sexes
from boneage_pl.data.table_file import first_header, read_rows
from boneage_pl.errors import BoneageError

_NOT_READ = (".xls", ".ods", ".numbers", ".sav", ".parquet")  # tables of other programs


def choose_table(place: Place, files: list[str], images: list[str]) -> tuple[Path, str]:
    """Return the table of a data set, and a word on others that could have been meant.

    Args:
        place: of the data set.
        files: every file under its folder.
        images: those that are images.

    Raises:
        BoneageError: no table, several that could be meant, or one whose columns are not understood.
    """
    if named := place.table_file():
        return named, ""
    # reading a pipe would wait for ever
    candidates = [Path(f) for f in with_suffix(files, place.known.table_suffixes) if Path(f).is_file()]
    headers, unread = _headers(candidates, place)
    tables = [file for file, header in headers.items() if is_header(header, place)]
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
    unchosen = [str(table.relative_to(place.root)) for table in tables if table not in chosen]
    return chosen[0], f"table: {names[0]}; not {first_ten(unchosen)}" if unchosen else ""


def is_header(cells: list[str], place: Place) -> bool:
    """Whether a row's cells are the header of a table of bone ages."""
    try:
        return not understood(cells, place.columns).missing
    except BoneageError:
        return True  # it is one, and says so when it is read


def _published(header: list[str], place: Place) -> bool:
    return {name.lower() for name in _meanings(header, place).values()} == PUBLISHED


def _meanings(header: list[str], place: Place) -> dict[str, str]:
    try:
        return understood(header, place.columns).of
    except BoneageError:
        return {}


def _headers(candidates: list[Path], place: Place) -> tuple[dict[Path, list[str]], BoneageError | None]:
    """Return the header of each table, and why one could not be read."""
    headers: dict[Path, list[str]] = {}
    unread = None
    for file in candidates:
        try:
            header = first_header(file, lambda cells: is_header(cells, place))
        except BoneageError as error:
            unread = error
            continue
        if not is_own(header):
            headers[file] = header
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
    known = {file: len(_meanings(header, place)) for file, header in headers.items() if len(header) > 1}
    tables = [file for file, count in known.items() if count == max(known.values())]
    if len(tables) == 1:
        raw = read_rows(tables[0], lambda cells: is_header(cells, place))
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
    if other := with_suffix(files, _NOT_READ):
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
        looked = f"It holds no table and no image{others(files, place)}"
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
    tables = [file for file, header in headers.items() if is_header(header, place)]
    known = [t for t in tables if t.name.lower() in place.known.tables]
    tables = known if len(tables) > 1 and known else tables
    return Path(os.path.relpath(tables[0], place.root.resolve())) if len(tables) == 1 else None


def others(files: Iterable[str], place: Place) -> str:
    """Say which files are left aside: radiographs in another format, or not unpacked."""
    read = {*place.known.image_suffixes, *place.known.table_suffixes}
    suffixes = Counter(suffix for f in files if (suffix := Path(f).suffix.lower()) and suffix not in read)
    return "".join(f"; {count} {suffix} files are not read" for suffix, count in suffixes.most_common(2))


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}"
