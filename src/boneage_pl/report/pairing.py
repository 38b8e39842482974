"""Two models on the same images: which of them is nearer, and how sure that is."""

from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.report.measures import to_json_numbers
from boneage_pl.report.statistics import paired_difference

MIN_PAIRS = 20  # shared images: a test of fewer says nothing
SAME_AGE = 1.0  # months that two tables may round one age apart


def paired_comparison(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    """Compare two models' absolute errors on the images that both were asked about.

    Args:
        one, other: `id, error`, a row an answer, and where it is known `image`, which of them show one image.

    Returns:
        `images` and `rows` that they share and whether these are `all` of both; `difference`, the first's MAE
        less the other's in months with the ends of its interval, and `p`, see `paired_difference`. Both are
        `None` where they share fewer than 20 images, or an answer is no number.
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
    found: dict[str, Any] = {"images": len(set(images)), "rows": len(first), "all": same}
    this, that = (rows["error"].abs().to_numpy(float) for rows in (first, second))
    if found["images"] < MIN_PAIRS or not np.isfinite(this - that).all():
        return {**found, "difference": None, "p": None}
    tested = paired_difference(this, that, images)
    difference = to_json_numbers(tested["difference"], tested["low"], tested["high"])
    return {**found, "difference": difference, "p": tested["p"]}


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
