"""Coverage of intervals, and MAE by predicted standard deviation."""

import numpy as np
import pandas as pd
import pytest

from boneage_pl.evaluation.calibration import LEVELS, coverage_by_level, measure_std
from boneage_pl.prediction.conformal import ConformalIntervals


def predictions(spread: np.ndarray, error: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"predicted_std": spread, "error": error, "image": np.arange(len(error))})


def test_informative_std_separates_quarters():
    rng = np.random.default_rng(0)
    spread = rng.uniform(2, 20, 400)
    measured = measure_std(predictions(spread, rng.normal(0, spread)))
    assert measured is not None
    assert measured["mean"] == pytest.approx(spread.mean())
    for part, rows in (("surest", spread <= np.quantile(spread, 0.25)), ("least_sure", spread >= 15.5)):
        # of a normal distribution the mean absolute deviation is √(2/π) standard deviations
        assert measured[part]["value"] == pytest.approx((2 / np.pi) ** 0.5 * spread[rows].mean(), rel=0.15)
    assert measured["least_less_surest"]["low"] > 0


def test_uninformative_std_does_not():
    rng = np.random.default_rng(1)
    measured = measure_std(predictions(rng.uniform(2, 20, 400), rng.normal(0, 10, 400)))
    assert measured is not None
    assert measured["least_less_surest"]["low"] < 0 < measured["least_less_surest"]["high"]
    diverged = predictions(np.full(40, np.nan), np.full(40, np.nan))
    assert measure_std(diverged) is None  # metrics.json cannot contain NaN
    assert measure_std(predictions(np.ones(40), np.ones(40)).drop(columns="predicted_std")) is None


def test_coverage_of_new_images_is_that_of_each_level():
    rng = np.random.default_rng(2)
    male, age, error = rng.random(16_000) > 0.5, rng.uniform(1, 228, 16_000), rng.normal(0, 10, 16_000)
    old, new = slice(8000), slice(8000, None)
    intervals = ConformalIntervals(male[old], (age + error)[old], abs(error[old]), None, 0.9)
    rows = pd.DataFrame({"male": male, "bone_age": age, "predicted": age + error})[new]
    found = coverage_by_level(rows, intervals)
    assert [row["level"] for row in found] == list(LEVELS)
    for row in found:
        assert row["all"] == pytest.approx(row["level"], abs=0.03)
        assert row["girls"] == pytest.approx(row["level"], abs=0.05)
    few = ConformalIntervals(male[:9], age[:9], abs(error[:9]), None, 0.9)
    assert coverage_by_level(rows, few) == []
