"""Find a bone-age table and its images under a folder, whatever the layout, and check both once."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from boneage_pl.errors import BoneageError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
OLDEST = 240  # months; the RSNA table ends at 228
_SEXES = {
    "true": True,
    "1": True,
    "m": True,
    "male": True,
    "false": False,
    "0": False,
    "f": False,
    "female": False,
}
_NEEDED = ["id", "boneage", "male"]
# The names the challenge and Kaggle gave the table; of several tables under one root these come first.
_KNOWN_TABLES = ["boneage-training-dataset.csv", "train.csv"]
_KNOWN_FOLDER = "boneage-training-dataset"


def read_table(root: Path) -> pd.DataFrame:
    """Read the table under `root` and find each row's image.

    Recognised: the Kaggle archive (images in `boneage-training-dataset/`, or nested once more), the
    challenge's own archives (`train.csv` or `boneage-training-dataset.csv`), and any folder that holds one
    table with the columns `id,boneage,male` and an `<id>.png` (or .jpg) for each row, at any depth.

    Returns:
        One row an image: `id` (str), `bone_age` (months, float), `male` (bool), `path` (str).

    Raises:
        BoneageError: no table, several that could be meant, rows that cannot be right, images missing.
    """
    files = list(_walk(root)) if root.is_dir() else []
    csv = _choose_table([f for f in files if f.suffix.lower() == ".csv"], root)
    table = _check_rows(_read_csv(csv), csv)
    images = _images_by_id([f for f in files if f.suffix.lower() in IMAGE_SUFFIXES], set(table["id"]))
    missing = [i for i in table["id"] if i not in images]
    if missing:
        raise BoneageError(
            f"{csv} names {len(table)} images; {len(missing)} of them are not under {root}.\n"
            f"Missing: {_first_ten(f'{i}.png' for i in missing)}\n"
            "Unpack the images beside the table (any depth), or take their rows out of it."
        )
    return table.assign(path=[str(images[i]) for i in table["id"]])


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


def _choose_table(csvs: list[Path], root: Path) -> Path:
    tables = [csv for csv in csvs if set(_NEEDED) <= set(_header(csv))]
    if not tables:
        raise _nothing_found(csvs, root)
    for name in _KNOWN_TABLES:
        if known := [table for table in tables if table.name.lower() == name]:
            tables = known
            break
    if len(tables) > 1:
        raise BoneageError(
            f"{root} holds {len(tables)} tables with the columns {','.join(_NEEDED)}: "
            f"{_first_ten(str(t.relative_to(root)) for t in tables)}\n"
            "Point data.root at the folder of the one you mean."
        )
    return tables[0]


def _nothing_found(csvs: list[Path], root: Path) -> BoneageError:
    looked = f"Looked for a .csv with the columns {','.join(_NEEDED)}"
    if not root.exists():
        looked = "That folder does not exist"
    elif csvs:
        looked += "; found " + _first_ten(f"{c.name} ({','.join(_header(c))[:60]})" for c in csvs[:3])
    return BoneageError(
        f"No bone-age data in data.root={root} ({root.resolve()}).\n"
        f"{looked}.\n"
        "Get the RSNA 2017 training set from the RSNA Pediatric Bone Age Challenge page (rsna.org) or\n"
        "from Kaggle (kmader/rsna-bone-age), unpack it and pass data.root=<folder> or set BONEAGE_DATA;\n"
        "or run with data=phantom, which draws its own radiographs and downloads nothing."
    )


def _header(csv: Path) -> list[str]:
    try:
        with csv.open(encoding="utf-8-sig", errors="replace") as file:
            return [_plain(name) for name in file.readline().split(",")]
    except OSError:
        return []


def _plain(name: str) -> str:
    return name.strip().strip('"').lower()


def _read_csv(csv: Path) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # a comma at the end of every line is an empty column too many, which nobody misses
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            raw = pd.read_csv(csv, dtype=str, encoding="utf-8-sig", keep_default_na=False, index_col=False)
    except (ValueError, OSError) as error:
        raise BoneageError(f"{csv} cannot be read as a table: {error}") from error
    raw = raw.rename(columns=_plain)
    if twice := [name for name in _NEEDED if list(raw.columns).count(name) > 1]:
        raise BoneageError(f"{csv} has more than one column called {twice[0]}. Rename or remove the others.")
    return raw[_NEEDED].apply(lambda column: column.str.strip())


def _check_rows(raw: pd.DataFrame, csv: Path) -> pd.DataFrame:
    """Turn text into values, or name every kind of problem with its first ten lines."""
    line = raw.index + 2  # as an editor counts them: the header is line 1
    ages = pd.to_numeric(raw["boneage"], errors="coerce")
    male = raw["male"].str.lower().map(_SEXES)
    unique = ~raw["id"].duplicated(keep=False)
    bad = {
        "an empty id": raw["id"] == "",
        "an id that is not a plain file name": raw["id"].str.contains(r"[/\\]|^\.+$"),
        "a bone age that is not a number": ages.isna(),
        f"a bone age outside 0 to {OLDEST} months": (ages < 0) | (ages > OLDEST),
        "a sex that is none of True/False, 1/0, M/F": male.isna(),
        "an id that another row has too": ~unique & (raw["id"] != ""),
    }
    problems = [
        f"{mask.sum()} with {what}: {_first_ten(_cell(raw, line, mask))}"
        for what, mask in bad.items()
        if mask.any()
    ]
    if raw.empty:
        problems = ["it has no rows"]
    if problems:
        raise BoneageError(
            f"{csv} has rows that cannot be used.\n" + "\n".join(problems) + "\nCorrect or remove them."
        )
    return pd.DataFrame({"id": raw["id"], "bone_age": ages.astype(float), "male": male.astype(bool)})


def _cell(raw: pd.DataFrame, line: pd.Index, mask: pd.Series) -> Iterator[str]:
    for number, row in zip(line[mask], raw[mask].itertuples(index=False), strict=True):
        yield f"line {number} ({','.join(row)})"


def _images_by_id(images: list[Path], ids: set[str]) -> dict[str, Path]:
    """Map each id to its one image; copies outside the folder named by the challenge give way to it."""
    found: dict[str, list[Path]] = {}
    for path in images:
        if path.stem in ids:
            found.setdefault(path.stem, []).append(path)
    chosen, ambiguous = {}, []
    for key, paths in found.items():
        inside = [p for p in paths if _KNOWN_FOLDER in p.parts] or paths
        chosen[key] = inside[0]
        if len(inside) > 1:
            ambiguous.append(f"{inside[0]} and {inside[1]}")
    if ambiguous:
        raise BoneageError(
            f"{len(ambiguous)} ids have more than one image: {_first_ten(ambiguous)}\n"
            "Point data.root at a folder that holds one copy of each."
        )
    return chosen


def _first_ten(names: object) -> str:
    listed = [str(name) for name in names]  # type: ignore[attr-defined]
    return ", ".join(listed[:10]) + (f" … ({len(listed)} in all)" if len(listed) > 10 else "")
