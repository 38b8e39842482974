"""Parse and validate ids, ages and sexes, and collect issues."""

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


def format_list(names: Iterable[object], limit: int | None = 10) -> str:
    """Format at most `limit` names, with their number if there are more."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:limit]) + (
        f" … ({len(listed)} in all)" if listed[limit or len(listed) :] else ""
    )


@dataclass
class DataIssues:
    """Unusable rows and images of a data set.

    Args:
        source: the label table.
        rows: `(id, problem, where)`; where is a line of the table or a file path.
    """

    source: Path
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, problem: str, places: Iterable[tuple[str, str]]) -> None:
        """Add rows with one problem, each with id and place."""
        self.rows += [(i, problem, where) for i, where in places]

    def filter(self, ids: set[str]) -> "DataIssues":
        """Return the issues of some ids."""
        return DataIssues(self.source, [row for row in self.rows if row[0] in ids])

    def table(self) -> pd.DataFrame:
        """Return the columns `id, problem, where`."""
        return pd.DataFrame(self.rows, columns=["id", "problem", "where"])

    def summary(self, limit: int | None = 10) -> str:
        """Return a line per problem with the number of rows and the first `limit` of them."""
        groups = self.table().groupby("problem", sort=False)["where"]
        return "\n".join(f"  {len(places)} × {kind}: {format_list(places, limit)}" for kind, places in groups)

    def error(self, limit: int | None = 10) -> BoneAgeError:
        """Return the error with the summary."""
        return BoneAgeError(
            f"{self.source}: {len(self)} unusable rows or images.\n{self.summary(limit)}\n"
            "Correct them, remove their rows from the table, or skip them with data.on_invalid=skip."
        )


def drop_invalid_images(
    issues: DataIssues, table: pd.DataFrame, errors: dict[str, str], pixel_sha256: dict[str, str]
) -> pd.DataFrame:
    """Add unusable images to the issues and return the rows of the others.

    Args:
        issues: the issues.
        table: `id, bone_age, male, path`.
        errors: errors of unreadable images, by id.
        pixel_sha256: pixel hashes of the others, by id, to find images with contradictory labels.
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
        problem = "image with another age or sex in another row"
        issues.add(problem, zip(rows["id"], places, strict=True))
    return good[~unequal].drop(columns="pixels")


MAX_MONTHS = 240  # the RSNA table ends at 228
MAX_YEARS = 25  # our choice: up to this maximum, ages may be in years, or of infants in months
_FLAGS = {"1": True, "true": True, "0": False, "false": False}  # in a column called male
SEXES = _FLAGS | {"m": True, "male": True, "boy": True, "f": False, "female": False, "girl": False}
_MANY = 0.1  # our choice: a larger share of other words is a code: M is male with W, not with H
_NUMBER = r"(\d+(?:\.\d+)?)\s*"
_YEARS_AND_MONTHS = re.compile(
    rf"(?:{_NUMBER}(?:y|yrs?|years?))?[\s,]*(?:{_NUMBER}(?:m|mos?|months?))?", re.I
)


def parse_sexes(table: LabelTable, cells: pd.Series) -> pd.Series:
    """Return whether each cell is male; missing if invalid.

    M/F, male/female and boy/girl mean the same in every column; the meaning of 1/0 and true/false depends on
    the column. `columns.sex_values` overrides all of these.

    Args:
        table: with a sex column.
        cells: all or some cells of this column.

    Raises:
        BoneAgeError: an unknown code, or a column given for the other sex.
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
            f"{table.path}: column {name} has unknown codes for the sex: {', '.join(values[:6])}.\n"
            f"Pass 'data.columns.sex_values={{{pairs}}}'"
        )
    if flags and sexes and flag not in sexes:
        raise BoneAgeError(
            f"{table.path}: column {name} is given as columns.{flag}, but by its name 1 is {min(sexes)}.\n"
            + format_options(**{f"columns__{min(sexes)}": name})
        )
    return cells.map(SEXES | {value: male == (flag == "male") for value, male in _FLAGS.items()})


def parse_ages(cells: pd.Series, unit: AgeUnit) -> pd.Series:
    """Return bone ages in months; missing if invalid.

    Args:
        cells: numbers with decimal point or comma, or with units (`5y 3m`, `63 mo`).
        unit: of numbers without a unit.
    """
    cells = cells.str.replace(r"(?<=\d),(?=\d)", ".", regex=True)
    ages = pd.to_numeric(cells, errors="coerce") * (12 if unit == "years" else 1)
    ages = ages.astype(float).fillna(cells.map(_parse_age).astype(float))
    whole = ages.round()
    return ages.round(2).where((ages - whole).abs() >= 0.07, whole) if unit == "years" else ages  # 10.83: 130


def _parse_age(cell: str) -> float | None:
    """Parse an age with units; `None` if invalid."""
    match = _YEARS_AND_MONTHS.fullmatch(cell) if cell else None
    years, months = match.groups() if match else (None, None)
    if not (years or months) or (years and months and ("." in years or float(months) >= 12)):
        return None
    return 12 * float(years or 0) + float(months or 0)


def age_unit(table: LabelTable, column: str) -> AgeUnit | None:
    """Return the unit of an age column: `data.age_unit`, that in its name, or months.

    `None` if it is not given and the ages could be years.
    """
    oldest = pd.to_numeric(table.rows[column].str.replace(",", "."), errors="coerce").max()
    unit = table.spec.age_unit or split_unit(column)[1]
    return unit or (None if oldest <= MAX_YEARS else "months")


def validate_rows(table: LabelTable, ids: pd.Series, issues: DataIssues) -> pd.DataFrame:
    """Parse the rows of a label table; unusable rows go to `issues` with their first problem.

    Of identical rows the first is used.

    Args:
        table: with bone ages and sexes.
        ids: of its rows.
        issues: the issues.

    Returns:
        `bone_age` (months) and `male` (bool), by line.

    Raises:
        BoneAgeError: unknown age unit or sex codes.
    """
    rows, spec, (age,), (sex,) = table.rows, table.spec, table.columns["bone_age"], table.columns["sex"]
    cells, sexes = rows[age], rows[sex]
    if (unit := age_unit(table, age)) is None:
        oldest = pd.to_numeric(cells.str.replace(",", "."), errors="coerce").max()
        raise BoneAgeError(
            f"{table.path}: the oldest bone age in column {age} is {oldest:g}.\n"
            "For decimal years (5.25 is 5 years and 3 months) pass data.age_unit=years;\n"
            "for infants' ages in months pass data.age_unit=months."
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
        "row with an id that has another age or sex in another row": ids.isin(
            distinct[distinct.duplicated()]
        ),
        "row that repeats another": ids.duplicated(),
    }
    good = pd.Series(True, index=rows.index)
    for problem, mask in problems.items():
        lines = rows.index[mask & good]
        places = (f"line {line} ({ids[line]},{cells[line]},{sexes[line]})"[:80] for line in lines)
        issues.add(problem, zip(ids[lines], places, strict=True))
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
