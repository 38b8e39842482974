"""Compare two models on the same images: permutation test, Holm correction."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.breakdown import metrics_of, to_json_numbers
from boneage_pl.evaluation.metrics import paired_difference

MIN_PAIRS = 20  # shared images: a test of fewer says nothing
SAME_AGE = 1.0  # months that two tables may round one age apart


def paired_comparison(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    """Compare two models' absolute errors on the images that both predicted.

    Args:
        one, other: `id, error`, a row for each prediction, and where known `image` and `stratum`, see
            `predictions_frame`.

    Returns:
        `images` and `rows` that they share and whether these are `all` of both; `difference`, the first's MAE
        less the other's in months with the ends of its interval, and `p`, see `paired_difference`. Both are
        `None` where they share fewer than 20 images, or a prediction is no number.
    """
    same = sorted(one["id"]) == sorted(other["id"])
    if same:  # row by row, repeats as often as they count
        first, second = (rows.sort_values("id", kind="stable") for rows in (one, other))
    else:
        shared = set(one["id"]) & set(other["id"])
        first, second = (
            rows[rows["id"].isin(shared)].drop_duplicates("id").sort_values("id") for rows in (one, other)
        )
    images = pd.factorize(first["image" if "image" in first else "id"])[0]
    result: dict[str, Any] = {"images": len(set(images)), "rows": len(first), "all": same}
    this, that = (rows["error"].abs().to_numpy(float) for rows in (first, second))
    if result["images"] < MIN_PAIRS or not np.isfinite(this - that).all():
        return {**result, "difference": None, "p": None}
    drawn = same and "stratum" in first and first["stratum"].any()  # of shared images it is not known how
    tested = paired_difference(this, that, images, strata=first["stratum"].to_numpy() if drawn else None)
    difference = to_json_numbers(tested["difference"], tested["low"], tested["high"])
    return {**result, "difference": difference, "p": tested["p"]}


def mismatched_ages(one: pd.Series, other: pd.Series) -> list[str]:
    """Return the ids that two tables share and give bone ages more than a month apart: other children.

    Args:
        one, other: months by id.
    """
    shared = one.index.intersection(other.index)
    return [i for i in shared if not abs(one[i] - other[i]) <= SAME_AGE]


def holm_correction(ps: list[float]) -> list[float]:
    """Return p values adjusted for being several (Holm, Scand J Stat 1979): the first mistake stays rare."""
    order = np.argsort(ps, kind="stable")
    stepped = np.maximum.accumulate(np.array(ps)[order] * (len(ps) - np.arange(len(ps))))
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(stepped, 1)
    return [float(p) for p in adjusted]


REQUIRED_COLUMNS = ("id", "predicted")
NUMBER_COLUMNS = {"predicted": "predictions", "bone_age": "bone ages"}


def parse_numbers(table: pd.DataFrame, column: str, named: str) -> pd.Series:
    """Return one of the columns `NUMBER_COLUMNS` of a table with ids as numbers.

    Raises:
        BoneAgeError: a cell is no number; the error names `named`.
    """
    values = pd.to_numeric(table[column], errors="coerce")
    if values.isna().any():
        first = table["id"][values.isna()].iloc[0]
        raise BoneAgeError(
            f"{named}: {values.isna().sum()} {NUMBER_COLUMNS[column]} are no numbers (id {first})."
        )
    return values


def read_predictions_csv(path: Path, ids: pd.DataFrame, option: str = "compare_with") -> pd.Series:
    """Return the months of a predictions.csv, by id, for the images of an evaluation.

    Args:
        path: of a CSV file with the columns `id` and `predicted`; where it has `bone_age`, that is compared.
        ids: `id, bone_age`.
        option: that named the file.

    Raises:
        BoneAgeError: not such a file; a prediction or age that is no number; an id with two predictions, or
            with another age than the evaluation's; no id in common.
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
        raise BoneAgeError(f"{option}={path} has several predictions for one image (id {twice[0]} first).")
    ages = ids.drop_duplicates("id").set_index("id")["bone_age"]
    shared = ages.index.intersection(months.index)
    if shared.empty:
        raise BoneAgeError(
            f"{option}={path} has none of the evaluated images: its ids are like {months.index[0]}, "
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


def compare_predictions(predictions: pd.DataFrame, name: str, months: pd.Series) -> dict[str, Any]:
    """Compare predictions with those of another model.

    Args:
        predictions: see `predictions_frame`.
        name: of the other.
        months: the other's, by id; it may lack some.

    Returns:
        see `paired_comparison`; `name`, and the statistics of both on what they share, `this` and `other`.
    """
    this = predictions[predictions["id"].isin(months.index)]
    predicted = this["id"].map(months)
    other = this.assign(predicted=predicted, error=predicted - this["bone_age"])
    return {
        "name": name,
        **paired_comparison(this, other),
        "all": len(this) == len(predictions),
        "this": metrics_of(this),
        "other": metrics_of(other),
    }
