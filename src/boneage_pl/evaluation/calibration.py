"""Coverage of prediction intervals, and how well predicted uncertainty ranks errors."""

from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.evaluation.breakdown import bootstrap
from boneage_pl.evaluation.metrics import Values, mean
from boneage_pl.prediction.conformal import AGES, ConformalIntervals, age_region

LEVEL = 0.9
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)  # of the chart; our choice


def add_intervals(predictions: pd.DataFrame, intervals: ConformalIntervals) -> pd.DataFrame:
    """Return predictions with `lower` and `upper`, the ends of their intervals as `predict` gives them.

    Args:
        predictions: see `predictions_frame`.
        intervals: of the checkpoints.
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
    """Return the share of ages inside their intervals, and how wide these are; `None` where there are none.

    Args:
        predictions: see `add_intervals`.
        intervals: of the checkpoints.

    Returns:
        `level`; `parts`: of all, by sex, by bone age, and by predicted age, by which they are calibrated;
        `by_level`: the share of `all`, `girls` and `boys` inside intervals of other levels.
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
    """Return the share of ages inside intervals of several levels, of `all`, `girls` and `boys`."""
    rows = []
    for level in LEVELS:
        known = add_intervals(predictions, intervals.at_level(level)).dropna(subset=["upper"])
        inside = known["bone_age"].between(known["lower"], known["upper"])
        parts = {"all": inside, "girls": inside[~known["male"]], "boys": inside[known["male"]]}
        if len(known):
            rows.append({"level": level, **{name: float(part.mean()) for name, part in parts.items()}})
    return rows


def measure_std(predictions: pd.DataFrame) -> dict[str, Any] | None:
    """Return the MAE of the quarter with the smallest predicted standard deviation, and with the largest.

    Args:
        predictions: see `predictions_frame`, with `predicted_std` in months where the model has one.

    Returns:
        `mean` of the deviation, months; `surest` and `least_sure`, the MAEs with their intervals, and
        `least_less_surest`, their difference. `None` where there is no deviation, or it is no number.
    """
    if "predicted_std" not in predictions or not np.isfinite(predictions["predicted_std"]).all():
        return None
    std, off = predictions["predicted_std"].to_numpy(float), predictions["error"].abs().to_numpy(float)
    low, high = np.quantile(std, [0.25, 0.75])
    quarters = {"surest": std <= low, "least_sure": std >= high}

    def maes(weights: Values) -> dict[str, Values]:
        found = {name: mean(off, weights * of) for name, of in quarters.items()}
        return {**found, "least_less_surest": found["least_sure"] - found["surest"]}

    return {"mean": float(std.mean()), **bootstrap(predictions, maes)}
