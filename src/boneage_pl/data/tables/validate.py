"""Parse and check ids, ages and sexes, and collect what cannot be used."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from boneage_pl.data.tables.columns import named_sexes, split_unit
from boneage_pl.data.tables.parse import LabelTable
from boneage_pl.data.tables.spec import AgeUnit, format_options
from boneage_pl.errors import BoneAgeError

log = logging.getLogger(__name__)
OnInvalid = Literal["raise", "skip"]


def check_on_invalid(on_invalid: str) -> OnInvalid:
    """Return `data.on_invalid`; raise `BoneAgeError` if it is neither `raise` nor `skip`."""
    if on_invalid not in ("raise", "skip"):
        raise BoneAgeError(f"data.on_invalid={on_invalid}: must be raise or skip.")
    return "skip" if on_invalid == "skip" else "raise"


def format_list(names: Iterable[object], most: int | None = 10) -> str:
    """List names up to `most` of them, and say how many there are if that is not all."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" … ({len(listed)} in all)" if listed[most or len(listed) :] else "")


@dataclass
class DataIssues:
    """The rows and images of one data set that cannot be used.

    Args:
        source: the label table.
        rows: `(id, problem, where)`: the problem is a kind, where a line of the table or a file's path.
    """

    source: Path
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, problem: str, places: Iterable[tuple[str, str]]) -> None:
        """Add rows with one problem, each an id and where it is."""
        self.rows += [(i, problem, where) for i, where in places]

    def filter(self, ids: set[str]) -> "DataIssues":
        """Return those of some ids."""
        return DataIssues(self.source, [row for row in self.rows if row[0] in ids])

    def table(self) -> pd.DataFrame:
        """Return the columns `id, problem, where`."""
        return pd.DataFrame(self.rows, columns=["id", "problem", "where"])

    def summary(self, most: int | None = 10) -> str:
        """Return a line for each problem: how many rows have it, and the first `most` of them."""
        groups = self.table().groupby("problem", sort=False)["where"]
        return "\n".join(f"  {len(places)} × {kind}: {format_list(places, most)}" for kind, places in groups)

    def error(self, most: int | None = 10) -> BoneAgeError:
        """Return the error that says all of it."""
        return BoneAgeError(
            f"{self.source}: {len(self)} rows or images cannot be used.\n{self.summary(most)}\n"
            "Correct them or take their rows out of the table; or leave them out with data.on_invalid=skip."
        )


def drop_invalid_images(
    issues: DataIssues, table: pd.DataFrame, errors: dict[str, str], pixel_sha256: dict[str, str]
) -> pd.DataFrame:
    """Add the images of `table` that cannot be used, and return the rows of the others.

    Args:
        issues: collects them.
        table: `id, bone_age, male, path`.
        errors: why an image cannot be read, by id.
        pixel_sha256: digests of the others' pixels, by id: an image has one age and one sex.
    """
    wrong = table["id"].map(errors)
    for error in wrong.dropna().unique():
        rows = table[wrong == error]
        issues.add(f"image that is {error}", zip(rows["id"], rows["path"], strict=True))
    good = table[wrong.isna()].assign(pixels=table["id"].map(pixel_sha256))
    labels = good[["pixels", "bone_age", "male"]].drop_duplicates()["pixels"]
    unequal = good["pixels"].isin(labels[labels.duplicated()])
    for _, rows in good[unequal].groupby("pixels", sort=False):
        places = (f"{path} (ids {format_list(rows['id'], 5)})" for path in rows["path"])
        problem = "image that another row has with another age or sex"
        issues.add(problem, zip(rows["id"], places, strict=True))
    return good[~unequal].drop(columns="pixels")


MAX_MONTHS = 240  # the RSNA table ends at 228
MAX_YEARS = 25  # our choice: a table whose oldest is no older may be in years, or of infants in months
_FLAGS = {"1": True, "true": True, "0": False, "false": False}  # of a column called male
SEXES = _FLAGS | {"m": True, "male": True, "boy": True, "f": False, "female": False, "girl": False}
_MANY = 0.1  # our choice: share of other words above which they are a code: M is male beside W, not beside H
_NUMBER = r"(\d+(?:\.\d+)?)\s*"
_YEARS_AND_MONTHS = re.compile(
    rf"(?:{_NUMBER}(?:y|yrs?|years?))?[\s,]*(?:{_NUMBER}(?:m|mos?|months?))?", re.I
)


def parse_sexes(table: LabelTable, cells: pd.Series) -> pd.Series:
    """Return whether each cell is male; missing where it is no sex.

    The words M/F, male/female and boy/girl mean the same in every column; what 1/0 and true/false mean
    depends on the column. `columns.sex_values` replaces all of these.

    Args:
        table: with a column of the sex.
        cells: of this column, all or a part.

    Raises:
        BoneAgeError: the column has a code that is not known, or is named by the option of the other sex.
    """
    (name,), flag, spec = table.columns["sex"], table.flag, table.spec
    cells = cells.str.casefold().str.replace(r"(?<=\d)\.0+$", "", regex=True)
    if codes := spec.sex_codes():
        return cells.map(codes)
    values = sorted(set(cells) - {""})
    flags = [value for value in values if value in _FLAGS]
    unknown = cells[~cells.isin({*SEXES, ""})]
    number = unknown.str.fullmatch(r"-?\d+(\.\d+)?").any()
    many = unknown.duplicated().any() and len(unknown) > _MANY * (cells != "").sum()
    sexes = named_sexes(name)
    if number or many or (flags and len(sexes) == 2):
        pairs = ", ".join(f"{value}: <male or female>" for value in values[:6])
        raise BoneAgeError(
            f"{table.path}: column {name} codes the sex as {', '.join(values[:6])}: which is which?\n"
            f"Pass 'data.columns.sex_values={{{pairs}}}'"
        )
    if flags and sexes and flag not in sexes:
        raise BoneAgeError(
            f"{table.path}: column {name} is named by columns.{flag}: does 1 stand for {min(sexes)}?\n"
            + format_options(**{f"columns__{min(sexes)}": name})
        )
    return cells.map(SEXES | {value: male == (flag == "male") for value, male in _FLAGS.items()})


def parse_ages(cells: pd.Series, unit: AgeUnit) -> pd.Series:
    """Return bone ages in months; missing where a cell is no age.

    Args:
        cells: numbers, with a decimal point or comma; or with units of their own (`5y 3m`, `63 mo`).
        unit: of the numbers without one.
    """
    cells = cells.str.replace(r"(?<=\d),(?=\d)", ".", regex=True)
    ages = pd.to_numeric(cells, errors="coerce") * (12 if unit == "years" else 1)
    ages = ages.astype(float).fillna(cells.map(_parse_age).astype(float))
    whole = ages.round()
    return ages.round(2).where((ages - whole).abs() >= 0.07, whole) if unit == "years" else ages  # 10.83: 130


def _parse_age(cell: str) -> float | None:
    """Return the months of an age with units of its own; `None` where it has none, or is no such age."""
    match = _YEARS_AND_MONTHS.fullmatch(cell) if cell else None
    years, months = match.groups() if match else (None, None)
    if not (years or months) or (years and months and ("." in years or float(months) >= 12)):
        return None
    return 12 * float(years or 0) + float(months or 0)


def age_unit(table: LabelTable, column: str) -> AgeUnit | None:
    """Return the unit of a column of ages: that of `data.age_unit`, of its name, or months.

    `None` where none is stated, and the ages could be years.
    """
    oldest = pd.to_numeric(table.rows[column].str.replace(",", "."), errors="coerce").max()
    unit = table.spec.age_unit or split_unit(column)[1]
    return unit or (None if oldest <= MAX_YEARS else "months")


def validate_rows(table: LabelTable, ids: pd.Series, issues: DataIssues) -> pd.DataFrame:
    """Parse the rows of a label table; those that cannot be used go to `issues`, with their first problem.

    Of rows that repeat each other to the letter the first is used.

    Args:
        table: with bone ages and sexes.
        ids: of its rows.
        issues: collects what cannot be used.

    Returns:
        `bone_age` (months) and `male` (bool), by line.

    Raises:
        BoneAgeError: the unit of the ages or the codes of the sexes are not known.
    """
    rows, spec, (age,), (sex,) = table.rows, table.spec, table.columns["bone_age"], table.columns["sex"]
    cells, sexes = rows[age], rows[sex]
    if (unit := age_unit(table, age)) is None:
        oldest = pd.to_numeric(cells.str.replace(",", "."), errors="coerce").max()
        raise BoneAgeError(
            f"{table.path}: the oldest bone age in column {age} is {oldest:g}.\n"
            "If these are decimal years (5.25 is 5 years and 3 months), pass data.age_unit=years;\n"
            "if they are months of infants, pass data.age_unit=months."
        )
    male = parse_sexes(table, sexes)
    ages = parse_ages(cells, unit)
    distinct = pd.DataFrame({"id": ids, "age": ages, "male": male}).drop_duplicates()["id"]
    problems = {
        "row with an empty id": ids == "",
        "row with an empty bone age": cells == "",
        "row with a bone age that is not a number": ages.isna(),
        f"row with a bone age outside 0 to {MAX_MONTHS} months": (ages < 0) | (ages > MAX_MONTHS),
        "row with a sex that is none of M/F, True/False, 1/0 (data.columns.sex_values)": male.isna(),
        "row with an id that another row has with another age or sex": ids.isin(
            distinct[distinct.duplicated()]
        ),
        "row that repeats another": ids.duplicated(),
    }
    good = pd.Series(True, index=rows.index)
    for problem, mask in problems.items():
        lines = rows.index[mask & good]
        shown = (f"line {line} ({ids[line]},{cells[line]},{sexes[line]})"[:80] for line in lines)
        issues.add(problem, zip(ids[lines], shown, strict=True))
        good &= ~mask
    valid = pd.DataFrame({"bone_age": ages[good], "male": male[good].astype(bool)})
    if valid.empty:
        return valid
    boys, flags = int(valid["male"].sum()), sexes.str.casefold().str.removesuffix(".0").isin(_FLAGS).any()
    flag = f" (1 is {table.flag})" if flags and not spec.sex_codes() else ""
    log.info(
        "%s: %d girls and %d boys by column %s%s; %g to %g months by column %s%s",
        *(table.path, len(valid) - boys, boys, sex, flag),
        *(valid["bone_age"].min(), valid["bone_age"].max(), age, " (years)" * (unit == "years")),
    )
    return valid
