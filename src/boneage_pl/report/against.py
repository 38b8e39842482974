"""The other model that an evaluation is held against: a checkpoint, or a file of answers."""

from pathlib import Path
from typing import Any

import pandas as pd

from boneage_pl.errors import BoneAgeError
from boneage_pl.report.measures import metrics_of
from boneage_pl.report.pairing import mismatched_ages, paired_comparison

REQUIRED_COLUMNS = ("id", "predicted")
NUMBER_COLUMNS = {"predicted": "answers", "bone_age": "bone ages"}


def parse_numbers(table: pd.DataFrame, column: str, named: str) -> pd.Series:
    """Return one of the columns `NUMBER_COLUMNS` of a table with ids as numbers.

    Raises:
        BoneAgeError: a cell is none, told under the name `named`.
    """
    found = pd.to_numeric(table[column], errors="coerce")
    if found.isna().any():
        first = table["id"][found.isna()].iloc[0]
        raise BoneAgeError(
            f"{named}: {found.isna().sum()} {NUMBER_COLUMNS[column]} are no numbers (id {first})."
        )
    return found


def read_predictions_csv(path: Path, ids: pd.DataFrame, option: str = "against") -> pd.Series:
    """Return the months of a predictions.csv, by id, for the images that are asked.

    Args:
        path: of a CSV file with the columns `id` and `predicted`; where it has `bone_age`, that is compared.
        ids: `id, bone_age`.
        option: that named the file.

    Raises:
        BoneAgeError: not such a file; an answer or age that is no number; an id with two answers, or with
            another age than is asked; no id in common.
    """
    try:
        table = pd.read_csv(path, dtype={"id": str})
    except (OSError, ValueError) as error:
        raise BoneAgeError(f"{option}={path} cannot be read as a table: {error}") from error
    if missing := [name for name in REQUIRED_COLUMNS if name not in table]:
        raise BoneAgeError(
            f"{option}={path} lacks {' and '.join(missing)}; its columns are {', '.join(table.columns)}.\n"
            "A predictions.csv has an id and what was predicted, in months, in each row."
        )
    known = [name for name in NUMBER_COLUMNS if name in table]
    table = table.assign(**{name: parse_numbers(table, name, f"{option}={path}") for name in known})
    months = table.drop_duplicates(["id", "predicted"]).set_index("id")["predicted"]
    if twice := months.index[months.index.duplicated()].tolist():
        raise BoneAgeError(f"{option}={path} has several answers for one image (id {twice[0]} first).")
    ages = ids.drop_duplicates("id").set_index("id")["bone_age"]
    shared = ages.index.intersection(months.index)
    if shared.empty:
        raise BoneAgeError(
            f"{option}={path} has no image that is asked here: its ids are like {months.index[0]}, "
            f"these like {ages.index[0]}."
        )
    if "bone_age" in table:
        theirs = table.drop_duplicates("id").set_index("id")["bone_age"]
        if apart := mismatched_ages(theirs, ages):
            raise BoneAgeError(
                f"{option}={path} has another bone age for {len(apart)} of the {len(shared)} images "
                f"(id {apart[0]}: {theirs[apart[0]]:g} and here {ages[apart[0]]:g} months): other children?"
            )
    return months[shared]


def compare_predictions(answers: pd.DataFrame, name: str, months: pd.Series) -> dict[str, Any]:
    """Compare answers with those of another model.

    Args:
        answers: see `answers_table`.
        name: of the other.
        months: the other's, by id; it may lack some.

    Returns:
        see `paired_comparison`; `name`, and the statistics of both on what they share, `this` and `other`.
    """
    this = answers[answers["id"].isin(months.index)]
    predicted = this["id"].map(months)
    other = this.assign(predicted=predicted, error=predicted - this["bone_age"])
    return {
        "name": name,
        **paired_comparison(this, other),
        "all": len(this) == len(answers),
        "this": metrics_of(this),
        "other": metrics_of(other),
    }
