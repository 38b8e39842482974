"""Read files of predictions: an evaluation's, `predict`'s, or those of any other model."""

from pathlib import Path

import numpy as np
import pandas as pd

from boneage_pl.data.images.radiograph import stem_of
from boneage_pl.data.tables.validate import SEXES
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.paired_test import mismatched_ages

REQUIRED = ("id", "predicted")
_NUMBERS = {"predicted": "predictions", "bone_age": "bone ages"}
_EVALUATION_COLUMNS = ("seen_in_training", "image", "stratum")  # numeric or boolean, in an evaluation's file


def read_predictions(path: Path, option: str) -> pd.DataFrame:
    """Read a file of predictions, each image once.

    Args:
        path: CSV file with the columns `id` and `predicted`, months; or one of `predict`, whose ids are the
            names of the files.
        option: the option that named the file, for errors.

    Returns:
        `id, predicted`; if present `bone_age` (months), `male` (bool), and `seen_in_training, image,
        stratum` of an evaluation; with ages `error`, predicted − true, months.

    Raises:
        BoneAgeError: not such a file; an invalid prediction, age or sex; an id with two predictions.
    """
    try:
        table = pd.read_csv(path, dtype={"id": str, "male": str}, keep_default_na=False)  # "NA" is a valid id
    except (OSError, ValueError) as error:
        raise BoneAgeError(f"{option}={path} cannot be read as a table: {error}") from error
    if {"path", "sex", "months", "error"} <= set(table.columns):
        table = table[table["error"] == ""]
        table = table.assign(id=table["path"].map(stem_of), predicted=table["months"], male=table["sex"])
    if missing := [name for name in REQUIRED if name not in table]:
        raise BoneAgeError(
            f"{option}={path} lacks {' and '.join(missing)}; its columns are {', '.join(table.columns)}.\n"
            "A file of predictions needs id and predicted (months) in each row."
        )
    if table.empty or (table["id"] == "").any():
        raise BoneAgeError(f"{option}={path}: {'no row' if table.empty else 'a row without an id'}.")
    for column in (name for name in _NUMBERS if name in table):
        values = pd.to_numeric(table[column], errors="coerce").astype(float)
        if (bad := ~np.isfinite(values)).any():
            first = table["id"][bad].iloc[0]
            raise BoneAgeError(
                f"{option}={path}: {bad.sum()} {_NUMBERS[column]} are not finite numbers (id {first})."
            )
        table[column] = values
    if "male" in table:
        sexes = table["male"].str.casefold().map(SEXES)
        if sexes.isna().any():
            first = table["id"][sexes.isna()].iloc[0]
            raise BoneAgeError(f"{option}={path}: male must be True or False; it is not for id {first}.")
        table["male"] = sexes.astype(bool)
    columns = [name for name in (*REQUIRED, "bone_age", "male") if name in table]
    columns += [name for name in _EVALUATION_COLUMNS if name in table and table[name].dtype.kind in "biu"]
    table = table[columns].drop_duplicates(["id", "predicted"])
    if (repeated := table["id"].duplicated()).any():
        raise BoneAgeError(
            f"{option}={path} has several predictions for an image (id {table['id'][repeated].iloc[0]})."
        )
    return with_error(table) if "bone_age" in table else table


def with_error(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column `error`, predicted − true, to `bone_age` and `predicted`, all in months."""
    return table.assign(error=table["predicted"] - table["bone_age"])


def predictions_for(path: Path, rows: pd.DataFrame, option: str) -> pd.Series:
    """Return the predictions of a file for the images of an evaluation, months by id.

    Args:
        path: see `read_predictions`.
        rows: `id, bone_age` of the evaluation.
        option: the option that named the file.

    Raises:
        BoneAgeError: see `read_predictions`; no shared id, or bone ages that differ from the evaluation's.
    """
    table = read_predictions(path, option)
    shared = table[table["id"].isin(rows["id"])]
    if shared.empty:
        raise BoneAgeError(
            f"{option}={path} has none of the evaluated images: its ids look like {table['id'].iloc[0]}, "
            f"theirs like {rows['id'].iloc[0]}."
        )
    if "bone_age" in table and len(different := mismatched_ages(shared, rows)):
        other_age, age = different.iloc[0]
        raise BoneAgeError(
            f"{option}={path} has different bone ages for {len(different)} of the {len(shared)} images "
            f"(id {different.index[0]}: {other_age:g}, here {age:g} months). Are these other children?"
        )
    return shared.set_index("id")["predicted"]
