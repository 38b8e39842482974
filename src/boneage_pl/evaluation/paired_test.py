"""Compare two models on the same images: permutation test, Holm correction."""

from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.evaluation.breakdown import image_numbers, to_json_numbers
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
    images = image_numbers(first)
    result: dict[str, Any] = {"images": len(set(images)), "rows": len(first), "all": same}
    this, that = (rows["error"].abs().to_numpy(float) for rows in (first, second))
    if result["images"] < MIN_PAIRS or not np.isfinite(this - that).all():
        return {**result, "difference": None, "p": None}
    drawn = same and "stratum" in first and first["stratum"].any()  # of shared images it is not known how
    tested = paired_difference(this, that, images, strata=first["stratum"].to_numpy() if drawn else None)
    difference = to_json_numbers(tested["difference"], tested["low"], tested["high"])
    return {**result, "difference": difference, "p": tested["p"]}


def mismatched_ages(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the ids that two tables `id, bone_age` share with ages over a month apart: other children.

    Returns:
        the ages of `one` and `other`, months, by id.
    """
    ages = {
        name: table.drop_duplicates("id").set_index("id")["bone_age"]
        for name, table in (("one", one), ("other", other))
    }
    both = pd.concat(ages, axis=1, join="inner")
    return both[~((both["one"] - both["other"]).abs() <= SAME_AGE)]


def holm_correction(ps: list[float]) -> list[float]:
    """Return p values adjusted for being several (Holm, Scand J Stat 1979): the first mistake stays rare."""
    order = np.argsort(ps, kind="stable")
    stepped = np.maximum.accumulate(np.array(ps)[order] * (len(ps) - np.arange(len(ps))))
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(stepped, 1)
    return [float(p) for p in adjusted]
