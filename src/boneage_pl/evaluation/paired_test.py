"""Compare two models on the same images: permutation test, Holm correction."""

from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.evaluation.breakdown import image_numbers, to_json_numbers
from boneage_pl.evaluation.metrics import paired_difference

MIN_PAIRS = 20  # shared images needed for a test
SAME_AGE = 1.0  # months; tables may round ages differently


def paired_comparison(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    """Compare two models' absolute errors on the images that both predicted.

    Args:
        one, other: `id, error`, a row per prediction, optionally `image` and `stratum`, see
            `predictions_frame`.

    Returns:
        number of shared `images` and `rows`, and whether these are `all` of both; `difference`, MAE of `one`
        minus MAE of `other` in months with its interval, and `p`, see `paired_difference`. Both are `None`
        with fewer than 20 shared images, or if a prediction is not finite.
    """
    same = sorted(one["id"]) == sorted(other["id"])
    if same:  # row by row, with repeats
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
    drawn = same and "stratum" in first and first["stratum"].any()  # strata do not apply to a subset
    tested = paired_difference(this, that, images, strata=first["stratum"].to_numpy() if drawn else None)
    difference = to_json_numbers(tested["difference"], tested["low"], tested["high"])
    return {**result, "difference": difference, "p": tested["p"]}


def mismatched_ages(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the shared ids of two tables `id, bone_age` whose ages differ by over a month.

    Returns:
        ages of `one` and `other`, months, by id.
    """
    ages = {
        name: table.drop_duplicates("id").set_index("id")["bone_age"]
        for name, table in (("one", one), ("other", other))
    }
    both = pd.concat(ages, axis=1, join="inner")
    return both[~((both["one"] - both["other"]).abs() <= SAME_AGE)]


def holm_correction(ps: list[float]) -> list[float]:
    """Return p values adjusted for multiple tests (Holm, Scand J Stat 1979)."""
    order = np.argsort(ps, kind="stable")
    stepped = np.maximum.accumulate(np.array(ps)[order] * (len(ps) - np.arange(len(ps))))
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(stepped, 1)
    return [float(p) for p in adjusted]
