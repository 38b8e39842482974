"""Parse and check ids, ages and sexes, and collect what cannot be used."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from boneage_pl.data.tables.spec import AgeUnit
from boneage_pl.errors import BoneAgeError


def format_list(names: Iterable[object], most: int | None = 10) -> str:
    """List names up to `most` of them, and say how many there are if that is not all."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" … ({len(listed)} in all)" if listed[most or len(listed) :] else "")


@dataclass(frozen=True)
class Issue:
    """One row or image that cannot be used."""

    id: str
    reason: str  # "row with an empty bone age": what it is counted under
    where: str  # "line 4 (1378,old,True)", or a file's path


OnInvalid = Literal["raise", "skip"]


def check_on_invalid(on_invalid: str) -> OnInvalid:
    """Raise `BoneAgeError` if `data.on_invalid` is neither `raise` nor `skip`."""
    if on_invalid not in ("raise", "skip"):
        raise BoneAgeError(f"data.on_invalid={on_invalid}: must be raise or skip.")
    return "skip" if on_invalid == "skip" else "raise"


class DataIssues:
    """Every row and image of one data set that cannot be used."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.issues: list[Issue] = []
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.issues)

    def add(self, kind: str, places: Iterable[tuple[str, str]]) -> None:
        """Add problems of one kind, each an id and where it was found."""
        self.issues += [Issue(i, kind, where) for i, where in places]

    def note(self, words: str) -> None:
        """Keep a word on how the data set was read that a person should see; nothing is kept of nothing."""
        self.notes += [words] if words else []

    def log_notes(self, log: logging.Logger) -> None:
        """Say what was noted since the last time."""
        for words in self.notes:
            log.info("%s", words)
        self.notes.clear()

    def filter(self, ids: set[str]) -> "DataIssues":
        """Return those of some ids."""
        part = DataIssues(self.source)
        part.issues = [problem for problem in self.issues if problem.id in ids]
        return part

    def summary(self, most: int | None = 10) -> str:
        """Return a line for each kind: how many there are, and the first `most` of them."""
        kinds = dict.fromkeys(problem.reason for problem in self.issues)
        places = {kind: [p.where for p in self.issues if p.reason == kind] for kind in kinds}
        return "\n".join(
            f"  {len(there)} × {kind}: {format_list(there, most)}" for kind, there in places.items()
        )

    def error(self, most: int | None = 10) -> BoneAgeError:
        """Return the error that says all of it."""
        return BoneAgeError(
            f"{self.source}: {len(self)} rows or images cannot be used.\n{self.summary(most)}\n"
            "Correct them or take their rows out of the table; or leave them out with data.on_invalid=skip."
        )

    def table(self) -> pd.DataFrame:
        """Return the problems as a table: `id, problem, where`."""
        rows = [(p.id, p.reason, p.where) for p in self.issues]
        return pd.DataFrame(rows, columns=["id", "problem", "where"])


def drop_invalid_images(
    problems: DataIssues, table: pd.DataFrame, bad: dict[str, str], contents: dict[str, str]
) -> pd.DataFrame:
    """Add the images of `table` that cannot be used, and return the rows of the others.

    Args:
        table: `id, bone_age, male, path`.
        bad: what an image is instead, by id.
        contents: what tells the others apart, by id: one picture with two ages or sexes has none.
    """
    wrong = table["id"].map(bad)
    for kind in wrong.dropna().unique():
        rows = table[wrong == kind]
        problems.add(f"image that is {kind}", zip(rows["id"], rows["path"], strict=True))
    good = table[wrong.isna()]
    content = good["id"].map(contents)
    labels = good.assign(content=content)[["content", "bone_age", "male"]].drop_duplicates()["content"]
    unequal = content.isin(labels[labels.duplicated()])
    copies = good[unequal].assign(content=content[unequal]).groupby("content", sort=False)
    for _, rows in copies:
        others = format_list(rows["id"], 5)
        problems.add(
            "image that another row has with another age or sex",
            ((i, f"{path} (ids {others})") for i, path in zip(rows["id"], rows["path"], strict=True)),
        )
    return good[~unequal]


MAX_MONTHS = 240  # months; the RSNA table ends at 228
MAX_YEARS = 20  # a table in which nobody is older than so many months is of infants, or was written in years
MAX_TWELFTHS_YEARS = 25  # up to here twelfths say that it was years
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
    if not ages.max() <= MAX_TWELFTHS_YEARS:
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
