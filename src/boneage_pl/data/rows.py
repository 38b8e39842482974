"""From a table's text to values: ids, ages in months, sexes; and every row that cannot be used."""

import re
from pathlib import Path

import pandas as pd

from boneage_pl.data.place import AgeUnit
from boneage_pl.data.problems import DataIssues
from boneage_pl.errors import BoneAgeError

MAX_MONTHS = 240  # months; the RSNA table ends at 228
MAX_YEARS = 20  # a table in which nobody is older than so many months is of infants, or was written in years
ADULT_MONTHS = 25  # up to here twelfths say that it was years
# As tables have them, and as spreadsheets of other languages write True and False
_SEX_PAIRS = {
    True: "true 1 1.0 m male boy wahr vrai verdadero verdadeiro vero waar",
    False: "false 0 0.0 f female girl falsch faux falso onwaar",
}
_SEX_CODES = {word: male for male, words in _SEX_PAIRS.items() for word in words.split()}
_NOT_OF_AN_ID = re.compile(r"(?<=\d)\.0+$|\.(png|jpe?g)$", re.IGNORECASE)  # 1377.0, 1377.png


def parse_sexes(cells: pd.Series) -> pd.Series:
    """Return whether each cell says male; missing where it is no sex."""
    return cells.str.lower().map(_SEX_CODES)


def validate_rows(
    raw: pd.DataFrame, table: Path, problems: DataIssues, unit: AgeUnit | None, *, inverted: bool = False
) -> pd.DataFrame:
    """Turn text into values; rows that cannot be used go to `problems`, each under its first kind.

    Of rows that repeat each other to the letter the first is used.

    Args:
        raw: `id, bone_age, male` as text; its index are the lines.
        unit: of the ages; `None` where neither the table nor the user says.
        inverted: the sex is given as whether the child is female.

    Returns:
        `id` (str, without a number's `.0` or an image's suffix), `bone_age` (months), `male`.

    Raises:
        BoneAgeError: no rows, or ages that could be months or years.
    """
    if raw.empty:
        raise BoneAgeError(f"{table}: it has no rows.")
    ids = raw["id"].str.replace(_NOT_OF_AN_ID, "", regex=True)
    ages = pd.to_numeric(raw["bone_age"].str.replace(",", ".", regex=False), errors="coerce")
    male = parse_sexes(raw["male"])
    if inverted:
        male = male.map({True: False, False: True})
    if unit is None:
        _check_unit(ages, table)
    elif unit == "years":
        ages = (ages * 12).round(2)
        ages = ages.where(~_are_integers(ages), ages.round())  # 10.83 years are 130 months
        problems.note(f"{table}: bone ages are in years there, and were made months")
    values = pd.DataFrame({"id": ids, "age": ages, "male": male})
    differing = ids.isin(values.drop_duplicates()["id"].loc[lambda i: i.duplicated()])
    bad = {
        "row with an empty id": ids == "",
        "row with an id that is not a plain file name": ids.str.contains(r"[/\\\0]|^\.+$"),
        "row with an empty bone age": raw["bone_age"] == "",
        "row with a bone age that is not a number": ages.isna(),
        f"row with a bone age outside 0 to {MAX_MONTHS} months": (ages < 0) | (ages > MAX_MONTHS),
        "row with a sex that is none of True/False, 1/0, M/F": male.isna(),
        "row with an id that another row has with another age or sex": differing,
        "row that repeats another": ids.duplicated(),
    }
    good = pd.Series(True, index=raw.index)
    for kind, mask in bad.items():
        problems.add(kind, ((ids[line], _raw_cell(raw, line)) for line in raw.index[mask & good]))
        good &= ~mask
    return pd.DataFrame(
        {"id": ids[good], "bone_age": ages[good].astype(float), "male": male[good].astype(bool)}
    )


def _raw_cell(raw: pd.DataFrame, line: int) -> str:
    return f"line {line} ({','.join(str(value) for value in raw.loc[line])[:60]})"


def _check_unit(ages: pd.Series, table: Path) -> None:
    """Raise `BoneAgeError` for ages that may be years, or infants' months."""
    if not ages.max() <= ADULT_MONTHS:
        return
    twelfths = ages[_are_integers(ages * 12)]
    odd = twelfths[~_are_integers(twelfths * 4)]  # 10.83, not 10.25, 10.5 or 10
    years = len(odd) > 0 and len(twelfths) == ages.notna().sum()
    if ages.max() > MAX_YEARS and not years:
        return
    oldest = f"{table}: the oldest of its {ages.notna().sum()} bone ages is {ages.max():g}"
    if years:
        raise BoneAgeError(
            f"{oldest}, and all are twelfths ({odd.iloc[0]:g}): these look like years.\n"
            "data.age_unit=years makes months of them; data.age_unit=months takes them as they are."
        )
    raise BoneAgeError(
        f"{oldest}: these look like years, or like infants' months.\n"
        "Say which: data.age_unit=months if the children are that young, data.age_unit=years if not."
    )


def _are_integers(values: pd.Series) -> pd.Series:
    """Whether values are whole, up to what two decimals of years leave of months."""
    return (values - values.round()).abs() < 0.07
