"""Read files of predictions: an evaluation's predictions.csv, or one of any other model."""

from pathlib import Path

import numpy as np
import pandas as pd

from boneage_pl.data.tables.validate import SEXES
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.paired_test import mismatched_ages

REQUIRED = ("id", "predicted")
_NUMBERS = {"predicted": "predictions", "bone_age": "bone ages"}
_MARKS = ("seen_in_training", "image", "stratum")  # of an evaluation's file, as numbers or true and false


def read_predictions(path: Path, option: str) -> pd.DataFrame:
    """Read a file of predictions, each image once.

    Args:
        path: of a CSV file with the columns `id` and `predicted`, months.
        option: that named the file, for the error.

    Returns:
        `id, predicted`; where they are there `bone_age` (months), `male` (bool), and an evaluation's own
        `seen_in_training, image, stratum`; with ages `error`, predicted − true, months.

    Raises:
        BoneAgeError: not such a file; a prediction, age or sex that is none; an id with two predictions.
    """
    try:
        table = pd.read_csv(path, dtype={"id": str, "male": str}, keep_default_na=False)  # "NA" is an id, too
    except (OSError, ValueError) as error:
        raise BoneAgeError(f"{option}={path} cannot be read as a table: {error}") from error
    if missing := [name for name in REQUIRED if name not in table]:
        raise BoneAgeError(
            f"{option}={path} lacks {' and '.join(missing)}; its columns are {', '.join(table.columns)}.\n"
            "A file of predictions has an id and what was predicted, in months, in each row."
        )
    if table.empty or (table["id"] == "").any():
        raise BoneAgeError(f"{option}={path}: {'no row' if table.empty else 'a row without an id'}.")
    for column in (name for name in _NUMBERS if name in table):
        values = pd.to_numeric(table[column], errors="coerce").astype(float)
        if (bad := ~np.isfinite(values)).any():
            first = table["id"][bad].iloc[0]
            raise BoneAgeError(
                f"{option}={path}: {bad.sum()} {_NUMBERS[column]} are no numbers (id {first})."
            )
        table[column] = values
    if "male" in table:
        sexes = table["male"].str.casefold().map(SEXES)
        if sexes.isna().any():
            first = table["id"][sexes.isna()].iloc[0]
            raise BoneAgeError(f"{option}={path}: male says no sex for {first}; it is True or False.")
        table["male"] = sexes.astype(bool)
    kept = [name for name in (*REQUIRED, "bone_age", "male") if name in table]
    kept += [name for name in _MARKS if name in table and table[name].dtype.kind in "biu"]
    table = table[kept].drop_duplicates(["id", "predicted"])
    if (twice := table["id"].duplicated()).any():
        raise BoneAgeError(
            f"{option}={path} has several predictions for one image (id {table['id'][twice].iloc[0]} first)."
        )
    return with_error(table) if "bone_age" in table else table


def with_error(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `bone_age` and `predicted` with `error`, predicted − true, all in months."""
    return table.assign(error=table["predicted"] - table["bone_age"])


def predictions_for(path: Path, rows: pd.DataFrame, option: str) -> pd.Series:
    """Return the months of a file of predictions for the images of an evaluation, by id.

    Args:
        path: see `read_predictions`.
        rows: `id, bone_age` of the evaluation.
        option: that named the file.

    Raises:
        BoneAgeError: see `read_predictions`; no id in common, or other bone ages than the evaluation's.
    """
    table = read_predictions(path, option)
    shared = table[table["id"].isin(rows["id"])]
    if shared.empty:
        raise BoneAgeError(
            f"{option}={path} has none of the evaluated images: its ids are like {table['id'].iloc[0]}, "
            f"these like {rows['id'].iloc[0]}."
        )
    if "bone_age" in table and len(apart := mismatched_ages(shared, rows)):
        theirs, ours = apart.iloc[0]
        raise BoneAgeError(
            f"{option}={path} has another bone age for {len(apart)} of the {len(shared)} images "
            f"(id {apart.index[0]}: {theirs:g} and here {ours:g} months): other children?"
        )
    return shared.set_index("id")["predicted"]
