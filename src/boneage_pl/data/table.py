"""Find a bone-age table and its images under a folder, whatever the layout, and check both once."""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from boneage_pl.data.columns import MEANINGS, is_training_table, recognised
from boneage_pl.data.csv_file import Understand, header, read_rows
from boneage_pl.data.problems import Problems, first_ten
from boneage_pl.errors import BoneageError

Columns = Mapping[str, str | None] | None

TABLE_SUFFIXES = {".csv", ".xlsx"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
OLDEST = 240  # months; the RSNA table ends at 228
YEARS = 20  # a table in which nobody is older than so many months was most likely written in years
_SEXES = {
    "true": True,
    "1": True,
    "1.0": True,
    "m": True,
    "male": True,
    "false": False,
    "0": False,
    "0.0": False,
    "f": False,
    "female": False,
}
# The names the challenge and Kaggle gave the table; of several tables under one root these come first.
_KNOWN_TABLES = ["boneage-training-dataset.csv", "train.csv"]
_KNOWN_FOLDER = "boneage-training-dataset"


def read_table(root: Path, columns: Columns = None) -> pd.DataFrame:
    """Return the table under `root`, as `examine_table` does, where nothing is wrong with it.

    Raises:
        BoneageError: see `examine_table`; or any row or missing image, all of them told together.
    """
    table, problems = examine_table(root, columns)
    if problems:
        raise problems.error()
    return table


def examine_table(root: Path, columns: Columns = None) -> tuple[pd.DataFrame, Problems]:
    """Read the table under `root`, find each row's image, and collect what cannot be used.

    Recognised: the Kaggle archive (images in `boneage-training-dataset/`, or nested once more), the
    challenge's own archives (`train.csv` or `boneage-training-dataset.csv`), and any folder that holds one
    table with the columns `id,boneage,male` and an `<id>.png` (or .jpg) for each row, at any depth. So are
    the challenge's validation and test tables, and any other whose columns have those meanings (see
    `MEANINGS`). An id is only ever compared with the names of the files that are there: none is made into a
    path.

    Args:
        root: the folder.
        columns: names of the columns `id`, `bone_age` and `male`; `None`, for all or one, to recognise it.

    Returns:
        The rows that can be used, one an image: `id` (str), `bone_age` (months, float), `male` (bool), `path`
        (str); and what is wrong with the others. No image has been opened.

    Raises:
        BoneageError: no table, several that could be meant, one without rows, or ages in years.
    """
    files = list(_walk(root)) if root.is_dir() else []
    understand = partial(recognised, named=columns)
    csv = _choose_table([f for f in files if f.suffix.lower() in TABLE_SUFFIXES], root, understand)
    problems = Problems(csv)
    table = _check_rows(read_rows(csv, understand), csv, problems)
    images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]
    found = _images_by_id(images, set(table["id"]))
    there = {i: _chosen(paths) for i, paths in found.items()}
    problems.add(
        f"row without its image under {root}", ((i, f"{i}.png") for i in table["id"] if i not in there)
    )
    problems.add(
        "id with more than one image",
        ((i, f"{paths[0]} and {paths[1]}") for i, paths in there.items() if len(paths) > 1),
    )
    single = table[table["id"].map(lambda i: len(there.get(i, ())) == 1).astype(bool)]
    return single.assign(path=[str(there[i][0]) for i in single["id"]]).reset_index(drop=True), problems


def _walk(root: Path) -> Iterator[Path]:
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
            if not name.startswith("."):
                yield Path(folder, name)


def _choose_table(csvs: list[Path], root: Path, understand: Understand) -> Path:
    csvs = [csv for csv in csvs if csv.is_file()]  # reading a pipe would wait for ever
    headers = {csv: header(csv, understand) for csv in csvs}
    tables = [csv for csv in csvs if understand(headers[csv])]
    if not tables:
        raise _nothing_found(headers, root)
    for name in _KNOWN_TABLES:
        if known := [table for table in tables if table.name.lower() == name]:
            tables = known
            break
    else:  # a table that is named like the training table's columns comes before one that only means the same
        tables = [table for table in tables if is_training_table(headers[table])] or tables
    if len(tables) > 1:
        raise BoneageError(
            f"{root} holds {len(tables)} tables with the columns {','.join(MEANINGS)}: "
            f"{first_ten(t.relative_to(root) for t in tables)}\n"
            "Point data.root at the folder of the one you mean."
        )
    return tables[0]


def _nothing_found(headers: dict[Path, list[str]], root: Path) -> BoneageError:
    looked = f"Looked for a .csv with the columns {','.join(MEANINGS)}"
    if not root.exists():
        looked = "That folder does not exist"
    elif headers:
        looked += "; found " + first_ten(
            f"{c.name} ({','.join(names)[:60]})" for c, names in list(headers.items())[:3]
        )
    return BoneageError(
        f"No bone-age data in data.root={root} ({root.resolve()}).\n"
        f"{looked}.\n"
        "Get the RSNA 2017 training set from the RSNA Pediatric Bone Age Challenge page (rsna.org) or\n"
        "from Kaggle (kmader/rsna-bone-age), unpack it and pass data.root=<folder> or set BONEAGE_DATA;\n"
        "or run with data=phantom, which draws its own radiographs and downloads nothing."
    )


def _check_rows(raw: pd.DataFrame, csv: Path, problems: Problems) -> pd.DataFrame:
    """Turn text into values; rows that cannot be used go to `problems`, each under its first kind.

    Of rows that repeat each other to the letter the first is used.
    """
    ages = pd.to_numeric(raw["boneage"].str.replace(",", ".", regex=False), errors="coerce")
    male = raw["male"].str.lower().map(_SEXES)
    if raw.empty:
        raise BoneageError(f"{csv}: it has no rows.")
    if ages.notna().any() and ages.max() <= YEARS:
        raise BoneageError(
            f"{csv}: the oldest of its {ages.notna().sum()} bone ages is {ages.max():g}: these look like "
            "years.\nboneage is in months: multiply the column by 12."
        )
    values = pd.DataFrame({"id": raw["id"], "age": ages, "male": male})
    differing = raw["id"].isin(values.drop_duplicates()["id"].loc[lambda i: i.duplicated()])
    bad = {
        "row with an empty id": raw["id"] == "",
        "row with an id that is not a plain file name": raw["id"].str.contains(r"[/\\\0]|^\.+$"),
        "row with an empty bone age": raw["boneage"] == "",
        "row with a bone age that is not a number": ages.isna(),
        f"row with a bone age outside 0 to {OLDEST} months": (ages < 0) | (ages > OLDEST),
        "row with a sex that is none of True/False, 1/0, M/F": male.isna(),
        "row with an id that another row has with another age or sex": differing,
        "row that repeats another": raw["id"].duplicated(),
    }
    good = pd.Series(True, index=raw.index)
    for kind, mask in bad.items():
        problems.add(kind, ((raw["id"][line], _cell(raw, line)) for line in raw.index[mask & good]))
        good &= ~mask
    return pd.DataFrame(
        {"id": raw["id"][good], "bone_age": ages[good].astype(float), "male": male[good].astype(bool)}
    )


def _cell(raw: pd.DataFrame, line: int) -> str:
    return f"line {line} ({','.join(str(value) for value in raw.loc[line])[:60]})"


def _images_by_id(images: list[Path], ids: set[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in images:
        if path.stem in ids:
            found.setdefault(path.stem, []).append(path)
    return found


def _chosen(paths: list[Path]) -> list[Path]:
    """Copies outside the folder named by the challenge give way to those in it."""
    return [p for p in paths if _KNOWN_FOLDER in p.parts] or paths
