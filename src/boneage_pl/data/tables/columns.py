"""Which column of a label table holds what."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from boneage_pl.data.tables.spec import AgeUnit
from boneage_pl.data.tables.validate import format_list
from boneage_pl.errors import BoneAgeError

# Names that tables give them, without case, blanks, underscores and units. The first are those of the
# challenge's training table, the others those of its validation and test tables and of what others publish.
COLUMN_ALIASES = {
    "id": (
        "id",
        "imageid",
        "caseid",
        "image",
        "case",
        "filename",
        "file",
        "imagename",
        "patientid",
        "patient",
    ),
    "bone_age": ("boneage", "groundtruthboneage", "skeletalage", "groundtruth"),
    "male": ("male", "sex", "gender", "patientsex", "female"),
}
RSNA_COLUMNS = {"id", "boneage", "male"}  # the very columns of the training table
ROLE_NAMES = {"id": "an id", "bone_age": "a bone age", "male": "a sex"}
_UNITS: dict[AgeUnit, set[str]] = {
    "months": {"months", "month", "mo", "m"},
    "years": {"years", "year", "yrs", "yr", "y"},
}
_RUN_OUTPUT_COLUMNS = ({"group", "subset"}, {"group", "predicted"})
_PLAIN = re.compile(r"[\w./-]+", re.ASCII)  # what Hydra's grammar and the shell take as it is

Columns = Mapping[str, str | None] | None


@dataclass(frozen=True)
class ColumnMapping:
    """Which columns of a header have a meaning.

    Args:
        of: the column's name as it stands in the file, by meaning.
        unit: of the bone age where its column says so: `months` or `years`; else `None`.
    """

    of: dict[str, str]
    unit: AgeUnit | None

    @property
    def missing(self) -> list[str]:
        """The meanings that no column has."""
        return [meaning for meaning in COLUMN_ALIASES if meaning not in self.of]

    @property
    def inverted(self) -> bool:
        """Whether the sex is given as `female`."""
        return _key(self.of["male"])[0] == "female"


def is_run_output(header: list[str]) -> bool:
    """Whether a run has written the table: its split.csv and predictions.csv are no data of their own."""
    return any(columns <= set(header) for columns in _RUN_OUTPUT_COLUMNS)


def map_columns(header: list[str], named: Columns = None) -> ColumnMapping:
    """Return what the columns of a header mean, as far as they are recognized or `named`.

    Raises:
        BoneAgeError: two columns could have one meaning.
    """
    mapping: dict[str, str] = {}
    for meaning, names in COLUMN_ALIASES.items():
        wanted = (named or {}).get(meaning)
        if wanted is not None:
            exactly = [name for name in header if name == wanted]
            same = exactly or [name for name in header if name.lower() == str(wanted).strip().lower()]
        else:
            there = [[name for name in header if _key(name)[0] == known] for known in names]
            same = next((names for names in there if names), [])
        if len(same) > len(set(same)):
            raise BoneAgeError(
                f"there is more than one column called {same[0]}. Rename or remove the others."
            )
        if len(same) > 1:
            raise BoneAgeError(
                f"more than one column could be {ROLE_NAMES[meaning]}: {', '.join(same)}.\n"
                f"Say which: {format_option(f'data.columns.{meaning}', same[0])}"
            )
        if same:
            mapping[meaning] = same[0]
    return ColumnMapping(mapping, _key(mapping["bone_age"])[1] if "bone_age" in mapping else None)


def unmapped_columns_error(
    table: pd.DataFrame, named: Columns, sexes: Callable[[pd.Series], pd.Series]
) -> str:
    """Say which columns of a table there are, what is missing, and the options that would name them.

    Args:
        table: as text, under its own header.
        named: as given by `data.columns`.
        sexes: cells → booleans, missing where a cell is no sex.
    """
    header = list(table.columns)
    meaning = map_columns(header, named)
    free = [name for name in header if name not in meaning.of.values()]
    options = []
    for lost in meaning.missing:
        fitting = [name for name in free if _could_hold(lost, table[name], sexes)]
        options.append(format_option(f"data.columns.{lost}", fitting[0] if len(fitting) == 1 else "<column>"))
        free = [name for name in free if fitting != [name]]
    wrong = [f"data.columns.{lost}={named[lost]}" for lost in meaning.missing if named and named.get(lost)]
    return (
        f"no column is recognized as {' or '.join(ROLE_NAMES[lost] for lost in meaning.missing)}"
        + (f" ({', '.join(wrong)})" if wrong else "")
        + f"; its columns are {format_list(header, 12)[:300]}.\n"
        f"Name what is missing: {' '.join(options)}"
    )


def format_option(key: str, value: str) -> str:
    """Return `key=value` as it can be pasted into a shell."""
    return f"{key}={value}" if _PLAIN.fullmatch(value) or value == "<column>" else f"'{key}=\"{value}\"'"


def _could_hold(meaning: str, cells: pd.Series, sexes: Callable[[pd.Series], pd.Series]) -> bool:
    cells = cells[cells != ""]
    if cells.empty:
        return False
    sex = bool(sexes(cells).notna().all())
    if meaning == "male":
        return sex
    number = bool(pd.to_numeric(cells.str.replace(",", ".", regex=False), errors="coerce").notna().all())
    return number and not sex if meaning == "bone_age" else not cells.duplicated().any() and not sex


def _key(name: Any) -> tuple[str, AgeUnit | None]:
    """Return a column's name without case, blanks and unit, and the unit."""
    words = re.findall(r"[^\W_]+", str(name).lower())
    unit = next((unit for unit, names in _UNITS.items() if words[1:] and words[-1] in names), None)
    return "".join(words[:-1] if unit else words), unit
