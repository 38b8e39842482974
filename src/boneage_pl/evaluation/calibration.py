"""Coverage of prediction intervals, and MAE by predicted standard deviation."""

from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.evaluation.breakdown import bootstrap
from boneage_pl.evaluation.metrics import Values, mean
from boneage_pl.prediction.conformal import AGES, ConformalIntervals, age_region

LEVEL = 0.9
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)  # in the figure; our choice


def add_intervals(predictions: pd.DataFrame, intervals: ConformalIntervals) -> pd.DataFrame:
    """Add the interval bounds `lower` and `upper`, as in `predict`.

    Args:
        predictions: see `predictions_frame`.
        intervals: the checkpoints' conformal intervals.
    """
    stds = predictions.get("predicted_std", repeat(None))
    rows = zip(predictions["predicted"], predictions["male"], stds, strict=False)
    ends = [
        intervals.interval(months, male=male, std=std) if np.isfinite(months) else (None, None)
        for months, male, std in rows
    ]
    return predictions.assign(
        **dict(zip(("lower", "upper"), np.array(ends, float).reshape(-1, 2).T, strict=True))
    )


def measure_interval_coverage(
    predictions: pd.DataFrame, intervals: ConformalIntervals
) -> dict[str, Any] | None:
    """Return coverage and mean width of prediction intervals; `None` if there are none.

    Args:
        predictions: see `add_intervals`.
        intervals: the checkpoints' conformal intervals.

    Returns:
        `level`; `parts`: overall, by sex, by bone age, and by predicted age, which calibration uses;
        `by_level`: coverage of intervals of other levels for `all`, `girls` and `boys`.
    """
    known = predictions[predictions["upper"].notna()]
    if known.empty:
        return None
    parts = [("all", np.ones(len(known), dtype=bool))]
    parts += [(name, (known["male"] == male).to_numpy()) for name, male in (("girls", False), ("boys", True))]
    for column, prefix in (("bone_age", ""), ("predicted", "predicted ")):
        region = age_region(known[column])
        parts += [(f"{prefix}{name}", region == at) for at, (name, _) in enumerate(AGES)]
    rows = [_coverage_row(name, known[mask]) for name, mask in parts if mask.any()]
    return {"level": LEVEL, "parts": rows, "by_level": coverage_by_level(predictions, intervals)}


def _coverage_row(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    inside = rows["bone_age"].between(rows["lower"], rows["upper"]).to_numpy().astype(np.float64)
    return {
        "name": name,
        "images": int(rows["image"].nunique()),
        **bootstrap(rows, lambda w: {"covered": mean(inside, w)}),
        "width": float((rows["upper"] - rows["lower"]).mean()),
    }


def coverage_by_level(predictions: pd.DataFrame, intervals: ConformalIntervals) -> list[dict[str, float]]:
    """Return the coverage of intervals of several levels for `all`, `girls` and `boys`."""
    rows = []
    for level in LEVELS:
        known = add_intervals(predictions, intervals.at_level(level)).dropna(subset=["upper"])
        inside = known["bone_age"].between(known["lower"], known["upper"])
        parts = {"all": inside, "girls": inside[~known["male"]], "boys": inside[known["male"]]}
        if len(known):
            rows.append({"level": level, **{name: float(part.mean()) for name, part in parts.items()}})
    return rows


def measure_std(predictions: pd.DataFrame) -> dict[str, Any] | None:
    """Return the MAE of the quarters with the smallest and the largest predicted standard deviation.

    Args:
        predictions: see `predictions_frame`, with `predicted_std` in months if the model has one.

    Returns:
        `mean` standard deviation, months; `surest` and `least_sure`, the MAEs with intervals, and
        `least_less_surest`, their difference. `None` without finite standard deviations.
    """
    if "predicted_std" not in predictions or not np.isfinite(predictions["predicted_std"]).all():
        return None
    std, errors = predictions["predicted_std"].to_numpy(float), predictions["error"].abs().to_numpy(float)
    low, high = np.quantile(std, [0.25, 0.75])
    quarters = {"surest": std <= low, "least_sure": std >= high}

    def quarter_maes(weights: Values) -> dict[str, Values]:
        maes = {name: mean(errors, weights * mask) for name, mask in quarters.items()}
        return {**maes, "least_less_surest": maes["least_sure"] - maes["surest"]}

    return {"mean": float(std.mean()), **bootstrap(predictions, quarter_maes)}
